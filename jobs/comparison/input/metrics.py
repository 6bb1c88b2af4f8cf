"""What is compared of a run, and why a run may lack it."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, inf
from typing import TYPE_CHECKING, Final

from jobs.comparison.text import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import MetricName
    from jobs.report.schema import Aggregate, GpuPhase, Report, Status


COMPLETED: Final[frozenset[Status]] = frozenset({"completed"})
TRAINED_TO_THE_END: Final[frozenset[Status]] = frozenset({"completed", "below_reference"})


LARGEST: Final = 1e30
"""No speed, time, power or energy of a run is larger, or smaller than one over it without being 0: a report that says
so is wrong. Sums, ratios and axes of what lies between stay inside a float's range."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """No measurement, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of a run.

    ``statuses`` are the runs whose figure counts for their side. Speed is that of completed runs; an accuracy
    below the reference counts as accuracy, since leaving out bad results would flatter a side.
    ``as_ratio`` says whether the sides are compared by the ratio of their medians.
    """

    name: MetricName
    label: str
    unit: str
    statuses: frozenset[Status]
    as_ratio: bool
    measure: Callable[[Report], float | Missing]

    @property
    def heading(self) -> str:
        """Label and unit, in which :meth:`shown` gives values."""
        return f"{self.label}, {'%' if self.unit == 'ratio' else self.unit}"

    def shown(self, value: float) -> str:
        """``value`` for people; ratios as percentages."""
        return f"{100 * value:.2f}" if self.unit == "ratio" else number(value)

    def of(self, report: Report) -> float | Missing:
        """The figure of one run, or why there is none."""
        try:
            value = self.measure(report)
        except (OverflowError, ValueError):
            # What fsum says to sums past a float's range; only a damaged report has such.
            value = inf
        if isinstance(value, Missing) or plausible(value):
            return value
        return Missing(reason=f"it comes to {value:.4g}, which no run can have")

    def counts(self, run: RunSummary) -> bool:
        return run.status in self.statuses


def plausible(value: float) -> bool:
    """Whether a run can have ``value`` as a figure or a time."""
    return value == 0 or 1 / LARGEST <= abs(value) <= LARGEST


def null_reason(report: Report, path: str) -> str:
    """The report's own reason for the null at ``path``; the entry nearest to the path speaks."""
    while path:
        if path in report.null_reasons:
            return report.null_reasons[path]
        path = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
    return "the report gives no reason"


def _result(name: str) -> Callable[[Report], float | Missing]:
    def measure(report: Report) -> float | Missing:
        value: float | None = getattr(report.results, name)
        return Missing(reason=null_reason(report, f"results.{name}")) if value is None else value

    return measure


RESUMED: Final = Missing(reason="the run was resumed, and a report has the readings of its own attempt only")


def _gpu_mean_in_training(
    name: str, read: Callable[[GpuPhase], Aggregate | None]
) -> Callable[[Report], float | Missing]:
    def measure(report: Report) -> float | Missing:
        if report.earlier_attempts:
            return RESUMED
        phases = [phase for phase in report.phases if phase.name == "train"]
        if not phases:
            return Missing(reason="the run has no train phase")
        readings = [(phase.end_s - phase.start_s, read(phase.gpu)) for phase in phases if phase.gpu is not None]
        taken = [(duration_s, reading) for duration_s, reading in readings if reading is not None]
        good = [(duration_s, reading) for duration_s, reading in taken if reading.quality == "ok" and duration_s > 0]
        if good:
            # A phase weighs by the time its samples stand for.
            weights = [duration_s * reading.coverage_ratio for duration_s, reading in good]
            total = fsum(weights)
            if total > 0:
                return fsum(weight * reading.mean for weight, (_, reading) in zip(weights, good, strict=True)) / total
        if taken:
            return Missing(reason="the train phases are too short for the sampler")
        return Missing(reason=null_reason(report, f"phases[].gpu.{name}" if readings else "phases[].gpu"))

    return measure


def _gpu_energy_in_training(report: Report) -> float | Missing:
    if report.earlier_attempts:
        return RESUMED
    phases = [phase for phase in report.phases if phase.name in {"first_step", "train"}]
    if not phases:
        return Missing(reason="the run has no train phase")
    energies: list[float] = []
    for phase in phases:
        if phase.gpu is None or phase.gpu.energy_j is None:
            # A sum that lacks a phase would flatter the run.
            path = "phases[].gpu" if phase.gpu is None else "phases[].gpu.energy_j"
            return Missing(reason=null_reason(report, path))
        energies.append(phase.gpu.energy_j)
    return fsum(energies)


HEADLINE: Final = Metric(
    name="steady_images_per_s",
    label="steady training",
    unit="images/s",
    statuses=COMPLETED,
    as_ratio=True,
    measure=_result("steady_images_per_s"),
)

METRICS: Final = (
    HEADLINE,
    Metric(
        name="train_wall_s",
        label="training time",
        unit="s",
        statuses=COMPLETED,
        as_ratio=True,
        measure=_result("train_wall_s"),
    ),
    Metric(
        name="test_accuracy_ratio",
        label="test accuracy",
        unit="ratio",
        statuses=TRAINED_TO_THE_END,
        as_ratio=False,
        measure=_result("test_accuracy_ratio"),
    ),
    Metric(
        name="gpu_util_percent",
        label="GPU utilization in training",
        unit="%",
        statuses=COMPLETED,
        as_ratio=False,
        measure=_gpu_mean_in_training("util_percent", lambda gpu: gpu.util_percent),
    ),
    Metric(
        name="gpu_power_w",
        label="GPU power in training",
        unit="W",
        statuses=COMPLETED,
        as_ratio=True,
        measure=_gpu_mean_in_training("power_w", lambda gpu: gpu.power_w),
    ),
    Metric(
        name="gpu_energy_j",
        label="GPU energy in training",
        unit="J",
        statuses=COMPLETED,
        as_ratio=True,
        measure=_gpu_energy_in_training,
    ),
)
