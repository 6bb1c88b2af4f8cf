"""The report of one run: the contract between what trains and what compares.

Names carry their SI unit (``_s``, ``_bytes``, ``_w``, ``_j``, ``_hz``); ratios end in ``_ratio`` and lie in
0…1, percentages end in ``_percent``. A measurement that could not be taken is ``null``, and
:attr:`Report.null_reasons` says why; it is never 0.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION: Final = "1.2"
"""Major.minor: a minor adds fields, a major changes the meaning of one."""

SCHEMA_MAJOR: Final = int(SCHEMA_VERSION.split(".")[0])

FrameworkName = Literal["tensorflow", "torch"]
"""The only list of the frameworks' names; each has an adapter of its own."""

FRAMEWORKS: Final[tuple[FrameworkName, ...]] = get_args(FrameworkName)

Status = Literal["completed", "interrupted", "failed", "diverged", "below_reference"]
PhaseName = Literal["startup", "dataset", "build", "first_step", "train", "evaluate", "checkpoint", "export"]
Quality = Literal["ok", "insufficient"]

Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _readable_version(version: str) -> str:
    major = version.split(".", maxsplit=1)[0]
    if not major.isdecimal() or int(major) != SCHEMA_MAJOR:
        raise ValueError(
            f"schema version {version!r} cannot be read: this release reads {SCHEMA_MAJOR}.x; "
            "use the release that wrote it"
        )
    return version


def _from_text(value: Any) -> Any:
    """A time as JSON has it; a number is no time, whatever clock it might have been read from."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


Instant = Annotated[AwareDatetime, BeforeValidator(_from_text)]


class Model(BaseModel):
    """Base of every part: immutable, finite numbers only, fields of a later minor version are let pass."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FrameworkVersion(Model):
    name: FrameworkName
    version: str


class Image(Model):
    """The container image, as its build recorded it."""

    ref: str | None
    digest: str | None


class Kubernetes(Model):
    """Where the pod ran, from the downward API."""

    node: str | None
    namespace: str | None
    pod: str | None
    job: str | None
    index: Count | None


class Cpu(Model):
    model: str | None
    logical_cores: Count | None
    quota_cores: Amount | None = Field(description="CPU the cgroup lets the process use; null where unlimited")


class Environment(Model):
    """Everything around the job that an upgrade could change."""

    driver_version: str | None
    cuda_driver_version: str | None = Field(description="CUDA version the driver supports")
    cuda_runtime_version: str | None = Field(description="CUDA version the framework was built with")
    cudnn_version: str | None
    framework: FrameworkVersion
    python_version: str
    package_version: str = Field(description="version of mnist-jobs")
    image: Image | None
    git_sha: str | None
    kubernetes: Kubernetes | None
    cpu: Cpu
    memory_total_bytes: Count | None
    os: str


class Device(Model):
    """One accelerator the job used."""

    framework_index: Count
    uuid: str | None
    mig_uuid: str | None
    pci_bus_id: str | None
    name: str
    compute_capability: str | None
    memory_total_bytes: Count | None
    power_limit_w: Amount | None
    mapping_method: str | None = Field(description="how the framework's device was matched to an NVML handle")


class Dataset(Model):
    name: str
    sha256: Sha256 = Field(
        description="SHA-256 of the four files' content hashes joined: train images, train labels, test images, labels"
    )
    train_examples: Count
    test_examples: Count


class Optimizer(Model):
    name: Literal["sgd", "adam"]
    momentum: Amount | None
    beta_1: Amount | None
    beta_2: Amount | None
    epsilon: Amount | None
    form: str = Field(description="whose arithmetic the update follows")


class Numerics(Model):
    """What is really in force, read back from the framework after it was set."""

    compute_dtype: str
    variable_dtype: str
    tf32_matmul: bool
    tf32_convolution: bool
    deterministic: bool
    intra_op_threads: Count | None
    thread_wait_policy: Literal["active", "passive"] | None = Field(
        default=None, description="OpenMP: whether idle threads keep a CPU busy; null where threads always sleep"
    )
    settings: dict[str, str] = Field(description="the framework's own switches, by its own names")


class Config(Model):
    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    seed: Count
    epochs: Count
    batch_size: Count
    learning_rate: Amount
    dataset: Dataset
    parameter_count: Count
    precision: Literal["fp32", "tf32", "bf16", "fp64"]
    execution: Literal["eager", "graph", "compiled"]
    input: Literal["resident", "streamed"]
    device: Literal["gpu", "cpu"]
    dropout: bool
    initializer: str
    optimizer: Optimizer
    numerics: Numerics


class EpochResult(Model):
    epoch: Annotated[int, Field(ge=1)]
    wall_s: Amount = Field(description="training only, without the evaluation")
    train_loss: float | None
    test_loss: float | None
    test_accuracy_ratio: Ratio | None


class Results(Model):
    test_accuracy_ratio: Ratio | None
    test_loss: float | None
    train_loss: float | None = Field(description="mean over the last epoch's examples, as training saw them")
    train_wall_s: Amount | None = Field(description="all optimizer steps, the first included, evaluation excluded")
    steady_images_per_s: Amount | None = Field(description="the train phases alone: no first step, which compiles")
    time_to_accuracy_s: Amount | None = Field(
        description="training time to the end of the first epoch that reached the target"
    )
    target_accuracy_ratio: Ratio | None
    reference_accuracy_ratio: Ratio | None = Field(description="the accuracy under which the run is below_reference")
    test_examples_evaluated: Count | None
    model_flop_per_image: Count | None = Field(description="forward and backward of one image: 3 x 2 x multiply-adds")
    achieved_flop_per_s: Amount | None
    ceiling_flop_per_s: Amount | None
    ceiling_share_ratio: Amount | None
    framework_memory_peak_bytes: Count | None = Field(
        default=None, description="the most the framework's allocator had in use on the device"
    )
    epochs: list[EpochResult]


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
    """What the GPU, or the MIG device, did in a stretch of time."""

    util_percent: Aggregate | None = Field(
        description="share of time in which some kernel ran; not how full the GPU was"
    )
    graphics_util_percent: Aggregate | None = Field(
        default=None, description="share of time in which a graphics or compute engine was busy (GPM)"
    )
    sm_util_percent: Aggregate | None = Field(description="share of streaming multiprocessors with work (GPM)")
    sm_occupancy_percent: Aggregate | None = Field(
        default=None, description="active warps against the most there could be (GPM)"
    )
    tensor_util_percent: Aggregate | None = Field(default=None, description="share of time in tensor units (GPM)")
    hmma_util_percent: Aggregate | None = Field(
        default=None, description="share of time in half-precision tensor units (GPM)"
    )
    fp32_util_percent: Aggregate | None = Field(
        default=None, description="share of time in FP32 arithmetic outside the tensor units (GPM)"
    )
    dram_bandwidth_util_percent: Aggregate | None = Field(
        default=None, description="memory bandwidth against the most there could be (GPM)"
    )
    pcie_tx_bytes_per_s: Aggregate | None = Field(default=None, description="from the GPU (GPM)")
    pcie_rx_bytes_per_s: Aggregate | None = Field(default=None, description="to the GPU (GPM)")
    memory_util_percent: Aggregate | None = Field(description="share of time in which memory was read or written")
    power_w: Aggregate | None
    sm_clock_hz: Aggregate | None = None
    memory_clock_hz: Aggregate | None = None
    temperature_c: Aggregate | None = None
    energy_j: Amount | None
    energy_source: str | None
    energy_from_power_j: Amount | None = Field(
        default=None, description="mean power times duration: a check on energy_j, and its stand-in without a counter"
    )
    memory_used_peak_bytes: Count | None = Field(description="the whole device's, not this process's alone")
    memory_reserved_bytes: Count | None = Field(default=None, description="by the driver, not in what is used")
    throttle_s: dict[str, Amount] | None = Field(description="time at lowered clocks by cause; causes may overlap")
    pcie_tx_bytes: Count | None = None
    pcie_rx_bytes: Count | None = None
    ecc_corrected_errors: Count | None = None
    ecc_uncorrected_errors: Count | None = None
    row_remaps_corrected: Count | None = None
    row_remaps_uncorrected: Count | None = None
    xid_errors: list[Count] | None = Field(default=None, description="XID numbers the driver reported, in order")


class HostPhase(Model):
    """What the training process and its children took of the host."""

    cpu_percent: Aggregate | None = Field(description="100 is one core")
    main_thread_percent: Aggregate | None = Field(
        default=None, description="the thread that feeds the device; near 100 it has no time left"
    )
    rss_peak_bytes: Count | None
    cgroup_throttled_s: Amount | None = Field(
        default=None, description="time the cgroup's CPU quota held the container back, summed over its threads"
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
    epoch: Annotated[int, Field(ge=1)] | None = Field(description="null outside the epochs")
    start_s: float = Field(description="seconds since the program started")
    end_s: float
    gpu: GpuPhase | None
    host: HostPhase | None


class EarlierAttempt(Model):
    """An attempt of this run that was cut short, up to the checkpoint from which a later one went on."""

    attempt: Annotated[int, Field(ge=1)]
    started_at_utc: Instant
    saved_at_utc: Instant
    epoch: Annotated[int, Field(ge=1)] = Field(description="the epoch in progress at the checkpoint")
    step: Count = Field(description="steps of that epoch that were done")
    device: str
    cpu_model: str | None
    phases_s: dict[PhaseName, Amount] = Field(description="seconds by phase, up to the checkpoint")


MIN_ROUNDING_STATES: Final = 8
"""States that judge a coarser precision, at least: one odd state then leaves the lower quartile as it is."""


class ParityStep(Model):
    loss: float
    grad_norm: float = Field(description="Euclidean norm over all parameters")


class ParityPath(Model):
    """The training code that was traced."""

    execution: Literal["eager", "graph", "compiled"]
    input: Literal["resident", "streamed"]
    precision: Literal["fp32", "tf32", "bf16", "fp64"]
    device: Literal["gpu", "cpu"]


class RoundingState(Model):
    """How far one step in the run's precision is from the same step in float64, both from one common state.

    Each error is the Euclidean norm of the difference over that of the float64 result.
    """

    step: Annotated[int, Field(ge=1)] = Field(description="the step that was taken; the state is the one before it")
    loss: Amount
    logits: Amount
    gradients: dict[str, Amount] = Field(description="by weight")
    updates: dict[str, Amount] = Field(description="what the optimizer adds, by weight")


class Parity(Model):
    """A trace for proving that both frameworks compute the same thing; dropout's rate is 0."""

    path: ParityPath | None = Field(
        default=None, description="null in reports before schema 1.2, whose trace was an eager step of its own"
    )
    steps: list[ParityStep] = Field(description="in float64, whatever the run's precision is (from schema 1.2 on)")
    initial_weights_sha256: Sha256
    first_logits: list[list[float]] = Field(description="batch x 10, evaluation mode, before the first step")
    weight_norms: dict[str, float] = Field(description="Euclidean norm of each weight after the last step")
    rounding: list[RoundingState] | None = Field(default=None, description="null where the run itself is in float64")


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
    stride: Annotated[int, Field(ge=1)] = Field(
        default=1, description="every how many-th reading of each column of a long run is kept"
    )
    values: list[list[float | None]]


class RunWarning(Model):
    code: str
    message: str


class Report(Model):
    """One run, whole."""

    schema_version: Annotated[str, AfterValidator(_readable_version)]
    run_id: RunId
    attempt: Annotated[int, Field(ge=1)]
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
    training: TrainingSummary | None = Field(default=None, description="the train phases together: steady training")
    validity: Validity | None = None
    parity: Parity | None
    telemetry: Telemetry
    timeseries: TimeSeries | None
    warnings: list[RunWarning]
    null_reasons: dict[str, str] = Field(
        description="why a field is null, by path; list items as [], and a path speaks for everything below it"
    )

    @classmethod
    def from_data(cls, data: Any) -> Report:
        """The report in ``data``, parsed JSON, read strictly: ``true`` and ``"1"`` are no numbers, and 1 is no truth.

        Raises:
            ValidationError: it is no report, or of a schema version that cannot be read.
        """
        return cls.model_validate(data, strict=True)

    def null_paths(self) -> set[str]:
        """Paths of all nulls, list items as ``[]``; the points of a time series explain themselves."""
        found: set[str] = set()
        _collect_nulls(self.model_dump(mode="json", exclude={"null_reasons", "timeseries"}), "", found)
        return found | ({"timeseries"} if self.timeseries is None else set())

    def unexplained_nulls(self) -> list[str]:
        """Paths of the nulls that no entry of ``null_reasons`` covers; empty in a well-formed report."""
        return sorted(path for path in self.null_paths() if not any(_covers(key, path) for key in self.null_reasons))

    def prune_null_reasons(self) -> Report:
        """The same report with the reasons its nulls need: of those that speak for one, the most precise."""
        needed = {
            max(keys, key=len)
            for path in self.null_paths()
            if (keys := [key for key in self.null_reasons if _covers(key, path)])
        }
        reasons = {key: reason for key, reason in sorted(self.null_reasons.items()) if key in needed}
        return self.model_copy(update={"null_reasons": reasons})


def _covers(key: str, path: str) -> bool:
    return path == key or path.startswith((f"{key}.", f"{key}[]"))


def _collect_nulls(node: Any, path: str, found: set[str]) -> None:
    if node is None:
        found.add(path)
    elif isinstance(node, dict):
        for key, value in node.items():
            _collect_nulls(value, f"{path}.{key}" if path else str(key), found)
    elif isinstance(node, list):
        for item in node:
            _collect_nulls(item, f"{path}[]", found)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of :class:`Report` (draft 2020-12), as published beside this module."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mnist-jobs report"}
