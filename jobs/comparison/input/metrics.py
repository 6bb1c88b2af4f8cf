"""The metrics of a run that are compared, and why a run may lack one."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from struct import pack, unpack
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.text import number
from jobs.report.measuring import MIN_COVERAGE_RATIO, is_too_short
from jobs.report.null_reasons import nearest_key
from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobs.comparison.schema_base import MetricName
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
TOO_SHORT: Final = Missing("training is too short to judge; use --repeat or more --epochs")
NOT_COVERED: Final = Missing(
    f"the readings cover less than {100 * MIN_COVERAGE_RATIO:.0f} % of training, so some were lost"
)
BEFORE_TRAINING_SUMMARY: Final = Missing(
    "written before report schema 1.1, which has the GPU's figures over all train phases"
)


_ENERGY: Final = "training.gpu.energy_j"

_TWO_DECIMALS: Final = (0.1, 1000.0)
"""Percentages that have two decimals. A share of a fast device's peak may be smaller, and is not shown as 0."""


@dataclass(frozen=True)
class Metric:
    """One metric of a run, at ``path`` of its report.

    ``statuses`` are those of the runs that count: speed is compared over completed runs. An accuracy below the
    reference counts as well, since excluding bad results would bias the comparison.
    ``as_ratio``: the sides are compared by the ratio of their medians; ``as_difference``: by the difference, in points.
    ``per_million_images``: the value is divided by the images of the train phases.
    """

    name: MetricName
    label: str
    unit: str
    path: str
    statuses: frozenset[Status] = COMPLETED
    as_ratio: bool = True
    as_difference: bool = False
    per_million_images: bool = False

    @property
    def heading(self) -> str:
        """Label and unit, in which :meth:`shown` gives values."""
        return f"{self.label}, {'%' if self.unit == 'ratio' else self.unit}"

    def shown(self, value: float) -> str:
        """``value`` as text; ratios as percentages."""
        if self.unit != "ratio":
            return number(value)
        percent, (low, high) = 100 * value, _TWO_DECIMALS
        return f"{percent:.2f}" if percent == 0 or low <= percent <= high else number(percent)

    def of(self, report: Report) -> float | Missing:
        """The value in one run, or why there is none."""
        refusal = self._refusal(report)
        if refusal is not None:
            return refusal
        if report.config.ranks > 1 and self.path == _ENERGY:
            return self._per_images(_energy_of_ranks(report), report)
        value: Any = report
        names = self.path.split(".")
        for depth, name in enumerate(names, start=1):
            value = getattr(value, name)
            if value is None:
                return Missing(null_reason(report, ".".join(names[:depth])))
        if isinstance(value, Aggregate):
            value = value.mean
        return self._per_images(value, report)

    def _per_images(self, value: float | Missing, report: Report) -> float | Missing:
        """``value``, divided by the images where it is per image."""
        if isinstance(value, Missing):
            return value
        if self.per_million_images:
            images = steady_images(report)
            if isinstance(images, Missing):
                return images
            value = value / images * 1e6
        return value if plausible(value) else Missing(f"its value of {value:.4g} is not plausible")

    def _refusal(self, report: Report) -> Missing | None:
        """Why a GPU figure that the report may have is not used."""
        if not self.is_of_gpu:
            return None
        readings = self.readings(report)
        reasons = {
            RESUMED: bool(report.earlier_attempts),
            BEFORE_TRAINING_SUMMARY: "training" not in report.model_fields_set,
            TOO_SHORT: is_too_short(report, self.path.rpartition(".")[2]),
            NOT_COVERED: readings is not None and readings.quality != "ok",
        }
        return next((reason for reason, applies in reasons.items() if applies), None)

    @property
    def is_of_gpu(self) -> bool:
        return self.path.startswith("training.gpu.")

    def readings(self, report: Report) -> Aggregate | None:
        """The readings behind the value, whether or not they are enough; ``None`` for what is no mean of readings."""
        if not self.is_of_gpu or report.training is None or report.training.gpu is None:
            return None
        value = getattr(report.training.gpu, self.path.rpartition(".")[2])
        return value if isinstance(value, Aggregate) else None

    def counts(self, status: Status) -> bool:
        """Whether a run that ended with ``status`` counts for this metric."""
        return status in self.statuses


def _energy_of_ranks(report: Report) -> float | Missing:
    """The energy of all ranks' devices; ``training`` has that of rank 0."""
    energies = [part.energy_j for part in report.ranks]
    if not energies or None in energies:
        return Missing(null_reason(report, "ranks[].energy_j"))
    return sum(energy for energy in energies if energy is not None)


def steady_images(report: Report) -> float | Missing:
    """The images of the train phases, over which :class:`~jobs.report.schema.TrainingSummary` has the GPU's figures.

    Of a run that was not resumed: its steady speed times its steady training time.
    """
    results, training = report.results, report.training
    if results.steady_images_per_s is None or training is None:
        return Missing(null_reason(report, "results.steady_images_per_s"))
    between_s = 0.0 if results.repeats is None else results.repeats.between_s
    images = results.steady_images_per_s * (training.duration_s - between_s)
    return images if images > 0 else Missing("no step followed the first one")


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
        as_difference=True,
    ),
    # Over all train phases, as aggregated by the job: each phase alone may be too short.
    Metric("gpu_util_percent", "GPU utilization in training", "%", "training.gpu.util_percent", as_ratio=False),
    Metric("gpu_sm_util_percent", "GPU SM activity in training", "%", "training.gpu.sm_util_percent", as_ratio=False),
    Metric("gpu_power_w", "GPU power in training", "W", "training.gpu.power_w"),
    Metric("gpu_energy_j", "GPU energy in training", "J", "training.gpu.energy_j"),
    Metric(
        "gpu_energy_j_per_million_images",
        "GPU energy per image",
        "J per million",
        "training.gpu.energy_j",
        per_million_images=True,
    ),
    # Achieved operations per second over the peak. Each framework measures its own, so the sides are not compared.
    Metric(
        "ceiling_share_ratio",
        "share of the matrix-product peak",
        "ratio",
        "results.ceiling_share_ratio",
        as_ratio=False,
    ),
    Metric("ceiling_flop_per_s", "matrix-product peak", "FLOP/s", "results.ceiling_flop_per_s", as_ratio=False),
)

METRIC_BY_NAME: Final[Mapping[MetricName, Metric]] = {metric.name: metric for metric in METRICS}

PLACE_OF: Final[Mapping[MetricName, int]] = {metric.name: at for at, metric in enumerate(METRICS)}


def pack_values(values: Iterable[float]) -> bytes:
    """``values`` in 8 bytes each. As Python objects they would take three to ten times the memory."""
    numbers = tuple(values)
    return pack(f"{len(numbers)}d", *numbers)


def unpack_values(packed: bytes) -> tuple[float, ...]:
    """The values of :func:`pack_values`."""
    return unpack(f"{len(packed) // 8}d", packed)


def pack_measured(measured: Mapping[MetricName, float | Missing]) -> tuple[bytes, tuple[Missing | None, ...]]:
    """Packed values of all metrics, NaN where there is none, and why there is none; both in the list's order."""
    ordered = [measured[metric.name] for metric in METRICS]
    values = pack_values(nan if isinstance(value, Missing) else value for value in ordered)
    return values, tuple(value if isinstance(value, Missing) else None for value in ordered)


def pack_readings(report: Report) -> bytes:
    """Of each metric that is a mean of a GPU's readings: its place in the list, their number and their coverage."""
    read_by_place = ((at, metric.readings(report)) for at, metric in enumerate(METRICS))
    # A number of readings that is not plausible may be more than a float holds.
    known = [(at, read) for at, read in read_by_place if read is not None and plausible(read.n)]
    return pack_values(value for at, read in known for value in (at, read.n, read.coverage_ratio))


def unpack_readings(packed: bytes) -> dict[MetricName, tuple[int, float]]:
    """The number of readings and their coverage, by metric."""
    values = iter(unpack_values(packed))
    return {METRICS[int(at)].name: (int(n), coverage) for at, n, coverage in zip(values, values, values, strict=True)}
