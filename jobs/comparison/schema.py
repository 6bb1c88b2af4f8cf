"""The models of comparison.json, which has its own schema version.

Field names carry their SI unit, as in the report. The same reports in any order give the same bytes: every list is
sorted, and nothing says when or where the comparison was made.
"""

from typing import Final, Literal

from pydantic import AwareDatetime

from jobs.choices import FrameworkName
from jobs.comparison.schema_base import MetricName, OfOneSetting, OnePerRun, Part, Readings
from jobs.comparison.schema_gate import Gate
from jobs.comparison.schema_parity import ParityPair, SectionParity, UnpairedTrace
from jobs.comparison.schema_scaling import RankProgress, RankSpeeds, ReductionCost, ScalingSeries, Unmeasured
from jobs.report.schema import PhaseName, Status

SCHEMA_VERSION: Final = "1.4"
"""Major.minor: a minor adds fields, a major changes the meaning of one."""

Why = Literal["framework", "allowed", "environment", "seeds"]
VerdictKind = Literal[
    "faster", "equivalent", "inconclusive", "confounded", "too_few_runs", "single_observation", "one_side_only"
]
ConfoundedBy = Literal["node", "order"]
OutlierKind = Literal["slow", "to_confirm", "no_speed"]


class Data(Part):
    """The dataset of all runs; ``names`` are what the reports call it."""

    names: list[str]
    sha256: str
    train_examples: int
    test_examples: int


class Observation(Part):
    """One run's value."""

    run_id: str
    attempt: int
    value: float


class SideMetric(Part):
    """One metric over one side's runs, ``null`` where no run has it; ``observations`` are all values.

    ``readings`` are the fewest readings and the lowest coverage of one run, for the mean of a GPU's readings.
    """

    name: MetricName
    unit: str
    n: int
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    readings: Readings | None = None
    observations: OnePerRun[Observation]
    unmeasured: list[Unmeasured]


class EpochAccuracy(Part):
    """Test accuracy after an epoch, over the ``n`` runs of a side that measured it.

    ``train_s`` is the median training time up to there, evaluation excluded.
    """

    epoch: int
    n: int
    train_s: float
    median: float
    minimum: float
    maximum: float


class Node(Part):
    """One node and its GPU: median steady training speed over the ``n`` of its runs that count.

    ``score`` is the distance of its first pass from the median of the side's nodes, in robust standard deviations;
    ``null`` with fewer than five nodes. ``to_confirm``: slow in the first pass. ``slow``: in the second pass as well.
    """

    node: str | None
    gpu_uuids: list[str]
    runs: int
    n: int
    median: float | None
    score: float | None
    outlier: OutlierKind | None


class SecondPass(Part):
    """Nodes to run again before they are called slow, ordinary nodes to run beside them, and the command."""

    again: list[str]
    beside: list[str]
    command: str


class FrameworkResults(Part):
    """One framework's runs in a section; ``nodes`` is empty where fewer than two nodes or GPUs are named.

    ``gpu_text`` says how well the GPU figures were measured, and is ``null`` where no GPU was read.
    ``second_pass`` is ``null`` where no node is to be confirmed.
    """

    framework: FrameworkName
    framework_versions: list[str]
    runs_by_status: dict[str, int]
    metrics: list[SideMetric]
    gpu_text: str | None
    epochs: list[EpochAccuracy]
    nodes: list[Node]
    second_pass: SecondPass | None


class MetricRatio(Part):
    """Ratio of two sides' medians; ``low`` and ``high`` are ``null`` with too few runs for an interval."""

    metric: MetricName
    numerator: FrameworkName
    denominator: FrameworkName
    ratio: float
    low: float | None = None
    high: float | None = None


class ComparedUnits(Part):
    """What the verdict's ratio and test are over: the units are runs, blocks, or nodes where there are several.

    ``runs`` counts the compared runs by framework; ``blocks`` is ``null`` where the runs are in no blocks.
    """

    unit: Literal["run", "block", "node"]
    nodes: int
    blocks: int | None
    runs: dict[FrameworkName, int]


class ExcludedRuns(Part):
    """Runs of a side that the verdict does not count, and why."""

    framework: FrameworkName
    why: str
    runs: int


class Unstable(Part):
    """A side whose interquartile range is a large share of its median."""

    framework: FrameworkName
    spread_ratio: float


class Suspect(Part):
    """Runs of a side that something disturbed, as their own reports say; the verdict leaves them out."""

    framework: FrameworkName
    cause: str
    runs: int


class Unchecked(Part):
    """Runs of a side that count although their reports could not check everything that may disturb a run."""

    framework: FrameworkName
    not_checked: str
    runs: int


class Verdict(Part):
    """The verdict on ``metric``; ``faster`` names the faster side, and is ``null`` unless the kind is ``faster``.

    ``p_value`` is the test's, ``p_value_table`` the same with Holm's correction over all sections; both are ``null``
    with too few runs or where the kind is ``confounded``. ``confounded_by`` says with what. ``units`` is ``null`` where
    no runs of both sides can be compared. ``remarks`` are about the design, such as clocks that disagree.
    """

    kind: VerdictKind
    metric: MetricName
    faster: FrameworkName | None
    p_value: float | None
    p_value_table: float | None
    text: str
    confounded_by: ConfoundedBy | None
    next_step: str | None
    units: ComparedUnits | None
    left_out: list[ExcludedRuns]
    suspect: list[Suspect]
    unchecked: list[Unchecked]
    unstable: list[Unstable]
    remarks: list[str]


class FieldDifference(Part):
    """A field that differs between comparable runs, with its values by framework, and why it may."""

    field: str
    why: Why
    values: dict[str, list[str]]


class RunWarnings(Part):
    """A warning that ``runs`` runs of a side carry."""

    framework: FrameworkName
    code: str
    message: str
    runs: int


class RunRow(Part):
    """One attempt of one run; ``phases_s`` are its total times by phase, ``missing`` says why a metric is ``null``.

    ``readings`` has the metrics that are means of a GPU's readings, also of too few.
    A run that died before its report is ``failed``, and ``framework_version`` is ``null``. ``ranks_seen`` are those of
    its ranks whose log lines were read. ``efficiency_ratio`` is of several ranks, with one rank of the same job.
    """

    framework: FrameworkName
    framework_version: str | None
    seed: int
    run_id: str
    attempt: int
    status: Status
    status_reason: str | None
    started_at_utc: AwareDatetime
    node: str | None
    gpu_uuids: list[str]
    source: str
    phases_s: dict[PhaseName, float]
    metrics: dict[MetricName, float | None]
    readings: dict[MetricName, Readings]
    missing: dict[MetricName, str]
    efficiency_ratio: float | None
    ranks_seen: list[RankProgress]


class Section(OfOneSetting):
    """All runs of one recipe, protocol and setting of ranks; ``rank_speeds`` has a side's for several ranks."""

    verdict: Verdict
    parity: SectionParity
    sides: list[FrameworkResults]
    ratios: list[MetricRatio]
    held_equal: dict[str, str | int | float | bool | None]
    differences: list[FieldDifference]
    runs: OnePerRun[RunRow]
    rank_speeds: list[RankSpeeds]
    warnings: list[RunWarnings]


class SkippedInput(Part):
    """Something among the input that could not be used; ``count`` lines of a log, or one file."""

    source: str
    reason: str
    count: int


class Comparison(Part):
    """A whole comparison; ``comparison_id`` is the same in every file that one merge wrote."""

    schema_version: Literal["1.4"] = SCHEMA_VERSION
    comparison_id: str
    package_version: str
    data: Data
    confidence_ratio: float
    bootstrap_resamples: int
    allowed: list[str]
    sections: list[Section]
    scaling: list[ScalingSeries]
    reduction_costs: list[ReductionCost]
    gate: Gate | None
    parity: list[ParityPair]
    unpaired_traces: list[UnpairedTrace]
    skipped: list[SkippedInput]
