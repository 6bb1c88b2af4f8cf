"""The figures of a run that are compared, and why a run may lack one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.text import number
from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import MetricName
    from jobs.report.schema import Report, Status


COMPLETED: Final[frozenset[Status]] = frozenset({"completed"})
TRAINED_TO_THE_END: Final[frozenset[Status]] = frozenset({"completed", "below_reference"})

MAX_MAGNITUDE: Final = 1e30
"""No speed, time, power or energy of a run is larger, or smaller than its inverse without being 0.

Other values are errors of the report. Without them no sum, ratio or axis leaves a float's range.
"""


@dataclass(frozen=True)
class Missing:
    """No measurement, and why."""

    reason: str


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    ``statuses`` are those of the runs that count: speed is compared over completed runs. An accuracy below the
    reference counts as well, since leaving out bad results would favour a side.
    ``as_ratio`` says whether the sides are compared by the ratio of their medians.
    """

    name: MetricName
    label: str
    unit: str
    statuses: frozenset[Status]
    measure: Callable[[Report], float | Missing]
    as_ratio: bool = True

    @property
    def heading(self) -> str:
        """Label and unit, in which :meth:`shown` gives values."""
        return f"{self.label}, {'%' if self.unit == 'ratio' else self.unit}"

    def shown(self, value: float) -> str:
        """``value`` as text; ratios as percentages."""
        return f"{100 * value:.2f}" if self.unit == "ratio" else number(value)

    def of(self, report: Report) -> float | Missing:
        """The figure of one run, or why there is none."""
        value = self.measure(report)
        if isinstance(value, Missing) or plausible(value):
            return value
        return Missing(f"it comes to {value:.4g}, which no run can have")

    def counts(self, run: RunSummary) -> bool:
        return run.status in self.statuses


def plausible(value: float) -> bool:
    """Whether a run can have ``value`` as a figure or a time."""
    return value == 0 or 1 / MAX_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE


def null_reason(report: Report, path: str) -> str:
    """The report's reason for the null at ``path``: that of the path itself, or of the nearest one above it."""
    while path:
        if path in report.null_reasons:
            return report.null_reasons[path]
        path = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
    return "the report gives no reason"


def _result(name: str) -> Callable[[Report], float | Missing]:
    def measure(report: Report) -> float | Missing:
        value: float | None = getattr(report.results, name)
        return Missing(null_reason(report, f"results.{name}")) if value is None else value

    return measure


RESUMED: Final = Missing("the run was resumed, and a report has the readings of its last attempt only")
TOO_SHORT: Final = Missing("the train phases are too short for the sampler")
BEFORE_POOLING: Final = Missing("written before report schema 1.1, which has the GPU's figures over all train phases")


def _gpu_in_training(name: str) -> Callable[[Report], float | Missing]:
    """A figure of ``training.gpu``: over all train phases together, as the job itself aggregated its readings."""

    def measure(report: Report) -> float | Missing:
        training = report.training
        if report.earlier_attempts:
            return RESUMED
        if "training" not in report.model_fields_set:
            return BEFORE_POOLING
        if training is None or training.gpu is None:
            return Missing(null_reason(report, "training" if training is None else "training.gpu"))
        value: float | Aggregate | None = getattr(training.gpu, name)
        if value is None:
            return Missing(null_reason(report, f"training.gpu.{name}"))
        if isinstance(value, Aggregate):
            return value.mean if value.quality == "ok" else TOO_SHORT
        return value

    return measure


HEADLINE: Final = Metric(
    "steady_images_per_s", "steady training", "images/s", COMPLETED, _result("steady_images_per_s")
)

METRICS: Final = (
    HEADLINE,
    Metric("train_wall_s", "training time", "s", COMPLETED, _result("train_wall_s")),
    Metric(
        "test_accuracy_ratio",
        "test accuracy",
        "ratio",
        TRAINED_TO_THE_END,
        _result("test_accuracy_ratio"),
        as_ratio=False,
    ),
    Metric(
        "gpu_util_percent",
        "GPU utilization in training",
        "%",
        COMPLETED,
        _gpu_in_training("util_percent"),
        as_ratio=False,
    ),
    Metric("gpu_power_w", "GPU power in training", "W", COMPLETED, _gpu_in_training("power_w")),
    Metric("gpu_energy_j", "GPU energy in training", "J", COMPLETED, _gpu_in_training("energy_j")),
)
