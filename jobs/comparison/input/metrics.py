"""The figures of a run that are compared, and why a run may lack one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.text import number
from jobs.report.schema import Aggregate

if TYPE_CHECKING:
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


RESUMED: Final = Missing("the run was resumed, and a report has the readings of its last attempt only")
TOO_SHORT: Final = Missing("the train phases are too short for the sampler")
BEFORE_TRAINING_SUMMARY: Final = Missing(
    "written before report schema 1.1, which has the GPU's figures over all train phases"
)


@dataclass(frozen=True)
class Metric:
    """One figure of a run, which is at ``path`` of its report.

    ``statuses`` are those of the runs that count: speed is compared over completed runs. An accuracy below the
    reference counts as well, since leaving out bad results would favour a side.
    ``as_ratio`` says whether the sides are compared by the ratio of their medians.
    """

    name: MetricName
    label: str
    unit: str
    path: str
    statuses: frozenset[Status] = COMPLETED
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
        if self.path.startswith("training."):
            if report.earlier_attempts:
                return RESUMED
            if "training" not in report.model_fields_set:
                return BEFORE_TRAINING_SUMMARY
        value: Any = report
        names = self.path.split(".")
        for depth, name in enumerate(names, start=1):
            value = getattr(value, name)
            if value is None:
                return Missing(null_reason(report, ".".join(names[:depth])))
        if isinstance(value, Aggregate):
            if value.quality != "ok":
                return TOO_SHORT
            value = value.mean
        return value if plausible(value) else Missing(f"it comes to {value:.4g}, which no run can have")

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


HEADLINE: Final = Metric("steady_images_per_s", "steady training", "images/s", "results.steady_images_per_s")

METRICS: Final = (
    HEADLINE,
    Metric("train_wall_s", "training time", "s", "results.train_wall_s"),
    Metric(
        "test_accuracy_ratio",
        "test accuracy",
        "ratio",
        "results.test_accuracy_ratio",
        statuses=TRAINED_TO_THE_END,
        as_ratio=False,
    ),
    # Over all train phases, as the job itself aggregated its readings: each phase alone may be too short.
    Metric("gpu_util_percent", "GPU utilization in training", "%", "training.gpu.util_percent", as_ratio=False),
    Metric("gpu_power_w", "GPU power in training", "W", "training.gpu.power_w"),
    Metric("gpu_energy_j", "GPU energy in training", "J", "training.gpu.energy_j"),
)
