"""The schema of the report of one run, shared by training and comparison.

Names carry their SI unit (``_s``, ``_bytes``, ``_w``, ``_j``, ``_hz``). Names in ``_ratio`` lie in 0…1, names in
``_percent`` are percentages. A measurement that could not be taken is ``null``, never 0, and
:attr:`Report.null_reasons` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from jobs.report.configuration import (
    Amount,
    Config,
    Count,
    Dataset,
    Device,
    Environment,
    Instant,
    Model,
    Number,
    Numerics,
    Ratio,
    RunId,
    added,
)
from jobs.report.null_reasons import USUAL_REASONS, nearest_key, null_paths
from jobs.report.parity import MIN_ROUNDING_STATES, Parity, RoundingState
from jobs.report.ranks import OneRankTraining, RankPart  # noqa: TC001
from jobs.report.repeats import Repeats  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Mapping

# Parts of the report that are defined in the modules beside this one and used by others.
__all__ = ["MIN_ROUNDING_STATES", "Dataset", "Numerics", "Parity", "RoundingState"]

SCHEMA_VERSION: Final = "1.4"
"""Major.minor: a minor adds fields, a major changes the meaning of one."""

SCHEMA_MAJOR: Final = int(SCHEMA_VERSION.split(".")[0])

Status = Literal["completed", "interrupted", "failed", "diverged", "below_reference"]
PhaseName = Literal["startup", "dataset", "build", "first_step", "train", "evaluate", "checkpoint", "export"]
Quality = Literal["ok", "insufficient"]


def _readable_version(version: str) -> str:
    major = version.split(".", maxsplit=1)[0]
    if not major.isdecimal() or int(major) != SCHEMA_MAJOR:
        raise ValueError(
            f"schema version {version!r} cannot be read: this release reads {SCHEMA_MAJOR}.x; "
            "use the release that wrote it"
        )
    return version


SchemaVersion = Annotated[str, AfterValidator(_readable_version)]


class EpochResult(Model):
    epoch: Number
    wall_s: Amount = Field(description="training only, without the evaluation")
    train_loss: float | None
    test_loss: float | None
    test_accuracy_ratio: Ratio | None


class Results(Model):
    test_accuracy_ratio: Ratio | None
    test_loss: float | None
    train_loss: float | None = Field(description="mean over the last epoch's examples, as training saw them")
    train_wall_s: Amount | None = Field(description="all optimizer steps of the first training, without evaluation")
    steady_images_per_s: Amount | None = Field(description="the train phases alone: no first step, which compiles")
    time_to_accuracy_s: Amount | None = Field(description="training time until an epoch ended at the target accuracy")
    target_accuracy_ratio: Ratio | None
    reference_accuracy_ratio: Ratio | None = Field(description="the accuracy under which the run is below_reference")
    test_examples_evaluated: Count | None
    model_flop_per_image: Count | None = Field(description="forward and backward of one image: 3 x 2 x multiply-adds")
    achieved_flop_per_s: Amount | None
    ceiling_flop_per_s: Amount | None
    ceiling_share_ratio: Amount | None
    framework_memory_peak_bytes: Count | None = added("the most the framework's allocator had in use on the device")
    epochs: list[EpochResult]
    repeats: Repeats | None = added("the trainings after the first, which only measure (--repeat)")


class Aggregate(Model):
    """Time-weighted figures of one metric inside one phase."""

    mean: float
    p50: float
    p95: float
    max: float
    n: Count = Field(description="samples inside the phase")
    coverage_ratio: Ratio = Field(description="share of the phase that samples stand for")
    quality: Quality


class GpuPhase(Model):
    """What the GPU, or the MIG device, did in an interval."""

    util_percent: Aggregate | None = Field(description="share of time some kernel ran; not how full the GPU was")
    graphics_util_percent: Aggregate | None = added("share of time a graphics or compute engine was busy (GPM)")
    sm_util_percent: Aggregate | None = Field(description="share of streaming multiprocessors with work (GPM)")
    sm_occupancy_percent: Aggregate | None = added("active warps against the most there could be (GPM)")
    tensor_util_percent: Aggregate | None = added("share of time in tensor units (GPM)")
    hmma_util_percent: Aggregate | None = added("share of time in half-precision tensor units (GPM)")
    fp32_util_percent: Aggregate | None = added("share of time in FP32 arithmetic outside the tensor units (GPM)")
    dram_bandwidth_util_percent: Aggregate | None = added("memory bandwidth against the most there could be (GPM)")
    pcie_tx_bytes_per_s: Aggregate | None = added("from the GPU (GPM)")
    pcie_rx_bytes_per_s: Aggregate | None = added("to the GPU (GPM)")
    memory_util_percent: Aggregate | None = Field(description="share of time in which memory was read or written")
    power_w: Aggregate | None
    sm_clock_hz: Aggregate | None = None
    memory_clock_hz: Aggregate | None = None
    temperature_c: Aggregate | None = None
    energy_j: Amount | None
    energy_source: str | None
    energy_from_power_j: Amount | None = added(
        "mean power times duration: a check on energy_j, and its stand-in without a counter"
    )
    memory_used_peak_bytes: Count | None = Field(description="the whole device's, not this process's alone")
    memory_reserved_bytes: Count | None = added("by the driver, not in what is used")
    throttle_s: dict[str, Amount] | None = Field(description="time at lowered clocks by cause; causes may overlap")
    pcie_tx_bytes: Count | None = None
    pcie_rx_bytes: Count | None = None
    ecc_corrected_errors: Count | None = None
    ecc_uncorrected_errors: Count | None = None
    row_remaps_corrected: Count | None = None
    row_remaps_uncorrected: Count | None = None
    xid_errors: list[Count] | None = added("XID numbers the driver reported, in order")


class HostPhase(Model):
    """What the training process and its children took of the host."""

    cpu_percent: Aggregate | None = Field(description="100 is one core")
    main_thread_percent: Aggregate | None = added("the thread that feeds the device; near 100 it has no time left")
    rss_peak_bytes: Count | None
    cgroup_throttled_s: Amount | None = added(
        "time the cgroup's CPU quota held the container back, summed over its threads"
    )


class TrainingSummary(Model):
    """All phases of one name together: of ``train``, the headline."""

    duration_s: Amount
    gpu: GpuPhase | None
    host: HostPhase | None


class Validity(Model):
    """Whether the measurements can be taken at face value; ``causes`` are codes of warnings."""

    status: Literal["ok", "suspect", "unchecked"] = Field(
        description="suspect: something disturbed the run; unchecked: on a GPU whose state could not be read"
    )
    causes: list[str]
    not_checked: list[str] = Field(default_factory=list, description="what could not be read of the GPU, in words")


class Phase(Model):
    name: PhaseName
    epoch: Number | None = Field(description="null outside the first training's epochs")
    start_s: float = Field(description="seconds since the program started")
    end_s: float
    gpu: GpuPhase | None
    host: HostPhase | None


class EarlierAttempt(Model):
    """An attempt of this run that was cut short, up to the checkpoint from which a later one went on."""

    attempt: Number
    started_at_utc: Instant
    saved_at_utc: Instant
    epoch: Number = Field(description="the epoch in progress at the checkpoint")
    step: Count = Field(description="steps of that epoch that were done")
    device: str
    cpu_model: str | None
    phases_s: dict[PhaseName, Amount] = Field(description="seconds by phase, up to the checkpoint")


class Capability(Model):
    supported: bool
    source: str | None
    error: str | None
    window_s: Amount | None = Field(description="time one reading stands for; null for an instantaneous one")


class SamplingRate(Model):
    """How one kind of reading kept its times."""

    interval_s: Amount
    planned: Count
    taken: Count
    missed: Count
    late: Count = Field(description="taken more than 10 ms after their time")
    lateness_p95_ms: Amount | None


class Sampler(Model):
    """Counts and lateness are those of the fast readings; ``rates`` has them all."""

    mode: Literal["process", "thread", "off"]
    interval_s: Amount | None
    planned: Count | None = None
    taken: Count
    missed: Count
    late: Count | None = None
    lateness_p95_ms: Amount | None
    cpu_s: Amount | None = Field(description="CPU time of sampling, the process's start apart")
    startup_cpu_s: Amount | None = None
    rates: dict[str, SamplingRate] = Field(default_factory=dict)


class Telemetry(Model):
    available: bool
    capabilities: dict[str, Capability]
    sampler: Sampler


class TimeSeries(Model):
    """Every sample: ``values[c][i]`` is column ``c`` at ``t_s[i]``, null where that reading failed."""

    columns: list[str]
    units: list[str]
    t_s: list[float] = Field(description="seconds since the program started, the phases' clock")
    stride: Number = Field(default=1, description="every how many-th reading of each column of a long run is kept")
    values: list[list[float | None]]


class RunWarning(Model):
    code: str
    message: str


class Report(Model):
    """One run, whole."""

    schema_version: SchemaVersion
    run_id: RunId
    attempt: Number
    status: Status
    status_reason: str | None = Field(description="one line; null for a completed run")
    started_at_utc: Instant
    finished_at_utc: Instant
    environment: Environment
    devices: list[Device]
    config: Config
    results: Results
    phases: list[Phase]
    earlier_attempts: list[EarlierAttempt] = Field(
        default_factory=list, description="what this one went on from; results are of all attempts, phases of this one"
    )
    ranks: list[RankPart] = Field(default_factory=list, description="each rank of a run that trains in shards")
    one_rank: OneRankTraining | None = added("the same steps by one rank alone, in the same job (--with-baseline)")
    training: TrainingSummary | None = added("the train phases together: steady training")
    validity: Validity | None = None
    parity: Parity | None
    telemetry: Telemetry
    timeseries: TimeSeries | None
    warnings: list[RunWarning]
    null_reasons: dict[str, str] = Field(
        description="why a field is null, by path; list items as []; a path stands for everything below it"
    )

    @classmethod
    def from_data(cls, data: Any) -> Report:
        """The report in ``data``, parsed JSON, read strictly: ``true`` and ``"1"`` are no numbers, and 1 is no truth.

        Raises:
            ValidationError: it is no report, or of a schema version that cannot be read.
        """
        return cls.model_validate(data, strict=True)

    def with_null_reasons(self, reasons: Mapping[str, str]) -> Report:
        """A copy with a reason for each null: the most precise of ``reasons`` and :data:`USUAL_REASONS`."""
        known = {**USUAL_REASONS, **reasons}
        keys = {nearest_key(path, known) for path in self._null_paths()}
        return self.model_copy(update={"null_reasons": {key: known[key] for key in sorted(filter(None, keys))}})

    def unexplained_nulls(self) -> list[str]:
        """Paths of the nulls without an entry in ``null_reasons``; empty in a valid report."""
        return sorted(path for path in self._null_paths() if nearest_key(path, self.null_reasons) is None)

    def _null_paths(self) -> set[str]:
        """Paths of all nulls, except in a time series, where a missing value needs no reason."""
        data = self.model_dump(mode="json", exclude={"null_reasons", "timeseries"})
        return {*null_paths(data), *(["timeseries"] if self.timeseries is None else [])}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of :class:`Report` (draft 2020-12), as published beside this module."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mnist-jobs report"}
