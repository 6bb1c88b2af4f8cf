"""The metrics of a run that are compared, and why a run may lack one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.text import number
from jobs.report.null_reasons import nearest_key
from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.comparison.schema import MetricName
    from jobs.report.schema import Report, Status


COMPLETED: Final[frozenset[Status]] = frozenset({"completed"})
TRAINED_TO_THE_END: Final[frozenset[Status]] = frozenset({"completed", "below_reference"})

MAX_MAGNITUDE: Final = 1e30
"""The largest plausible speed, time, power or energy; its inverse is the smallest except 0.

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
    """One metric of a run, at ``path`` of its report.

    ``statuses`` are those of the runs that count: speed is compared over completed runs. An accuracy below the
    reference counts as well, since excluding bad results would bias the comparison.
    ``as_ratio``: the sides are compared by the ratio of their medians.
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
        """The value in one run, or why there is none."""
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
        return value if plausible(value) else Missing(f"its value of {value:.4g} is not plausible")

    def counts(self, status: Status) -> bool:
        """Whether a run that ended with ``status`` counts for this metric."""
        return status in self.statuses


def plausible(value: float) -> bool:
    """Whether a run can have ``value`` as a measurement."""
    return value == 0 or 1 / MAX_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE


def null_reason(report: Report, path: str) -> str:
    """The report's reason for the null at ``path``."""
    key = nearest_key(path, report.null_reasons)
    return "the report gives no reason" if key is None else report.null_reasons[key]


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
    # Over all train phases, as aggregated by the job: each phase alone may be too short.
    Metric("gpu_util_percent", "GPU utilization in training", "%", "training.gpu.util_percent", as_ratio=False),
    Metric("gpu_power_w", "GPU power in training", "W", "training.gpu.power_w"),
    Metric("gpu_energy_j", "GPU energy in training", "J", "training.gpu.energy_j"),
)

METRIC_BY_NAME: Final[Mapping[MetricName, Metric]] = {metric.name: metric for metric in METRICS}
