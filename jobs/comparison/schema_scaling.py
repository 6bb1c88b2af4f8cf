"""The models of comparison.json about runs of several ranks."""

from typing import Literal

from jobs.choices import FrameworkName, Reduction, Scaling
from jobs.comparison.schema_base import Part


class Unmeasured(Part):
    """Number of a side's runs that lack a value for one reason."""

    reason: str
    runs: int


class RankMeasure(Part):
    """A value over ``n`` runs, ``null`` where none has it.

    ``low`` and ``high`` are the interval; ``null`` for one run, which is a single observation, and for a median.
    """

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unmeasured: list[Unmeasured]


class ScalingPoint(Part):
    """The completed runs of a number of ranks that are not suspect.

    ``one_rank_images_per_s`` is what rank 0 reached alone in the same jobs. ``efficiency_ratio`` is the geometric mean
    of each run's speed over ``ranks`` times its own speed of one rank. Of the time of all ranks,
    ``communication_ratio`` is the share of communication, and ``wait_ratio`` that of waiting for the slowest rank
    within it. Values without an interval are medians of the runs.
    """

    ranks: int
    runs: int
    images_per_s: RankMeasure
    one_rank_images_per_s: RankMeasure
    efficiency_ratio: RankMeasure
    communication_ratio: RankMeasure
    wait_ratio: RankMeasure


class ScalingSeries(Part):
    """One framework's runs that differ in the number of ranks.

    ``batch_size`` is of all ranks for strong scaling, and of each rank for weak. ``differences`` are the compared
    fields that are not equal for all numbers of ranks.
    """

    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    precision: str
    reduction: Reduction
    scaling: Scaling
    batch_size: float
    points: list[ScalingPoint]
    differences: list[str]

    @property
    def title(self) -> str:
        batch = f"batch of {self.batch_size:g}" + (" a rank" if self.scaling == "weak" else "")
        names = (self.framework, self.recipe, self.protocol, self.precision, self.reduction)
        return f"{', '.join(names)}, {self.scaling} scaling, {batch}"


class ReductionCost(Part):
    """What ``exact`` costs one framework: ``ratio`` is the other way's median speed over that of ``exact``.

    ``other`` is ``null`` for whole batches on one rank, which is training without ranks. ``batch_size`` is of all
    ranks. ``low`` and ``high`` are the interval; ``null`` below five runs of either, and where the two ran on other
    nodes. ``differences`` are the other fields that are not equal.
    """

    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    precision: str
    batch_size: float
    ranks: int
    device: str
    other: Reduction | None
    exact_runs: int
    other_runs: int
    exact_images_per_s: float
    other_images_per_s: float
    ratio: float
    low: float | None = None
    high: float | None = None
    differences: list[str]

    @property
    def title(self) -> str:
        names = (self.framework, self.recipe, self.protocol, self.precision)
        return f"{', '.join(names)}, batch of {self.batch_size:g}, {self.device}"


class EpochRatio(Part):
    """A rank's compute time per step over the median of the other ranks', in one epoch."""

    epoch: int
    ratio: float


class Straggler(Part):
    """A rank that computed for longer than the others of its run; ``ratio`` is the median of ``epochs``."""

    run_id: str
    attempt: int
    rank: int
    node: str | None
    uuid: str | None
    ratio: float
    epochs: list[EpochRatio]


class RankSpeeds(Part):
    """A side's runs of several ranks: ``judged`` of them could show a slow rank, and ``stragglers`` are these."""

    framework: FrameworkName
    judged: int
    stragglers: list[Straggler]
    not_judged: list[Unmeasured]
    text: str


class RankProgress(Part):
    """How far a rank of a run came that has no report: ``epoch`` is the last one that it ended, 0 for none."""

    rank: int
    node: str | None
    epoch: int
    ended: bool
