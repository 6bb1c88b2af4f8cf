"""The part of the report that is known before training: environment, devices and configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from jobs.choices import (
    DeviceKind,
    Execution,
    FrameworkName,
    InputPath,
    Precision,
    Reduction,
    Scaling,
    TrainingProtocol,
)

Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _from_text(value: Any) -> Any:
    """Parse a time from JSON text. A number is returned unchanged, and then refused."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


Instant = Annotated[AwareDatetime, BeforeValidator(_from_text)]


def added(description: str) -> Any:
    """A field that a minor version added: older reports do not have it."""
    return Field(default=None, description=description)


class Model(BaseModel):
    """Base of every part: immutable, finite numbers only, unknown fields of a later minor version are ignored."""

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
    affinity_cores: Count | None = added("logical CPUs that the process may run on")


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
    intra_op_threads: Count | None = Field(description="CPU threads that work on one operation together")
    inter_op_threads: Count | None = added("CPU threads that start operations")
    thread_wait_policy: Literal["active", "passive"] | None = added(
        "OpenMP: whether idle threads keep a CPU busy; null where threads always sleep"
    )
    settings: dict[str, str] = Field(description="the framework's own switches, by its own names")


class Design(Model):
    """Where a run stands in an experiment of randomised blocks: one run of each framework per block, in drawn order."""

    plan_id: RunId = Field(description="the experiment; runs of different plans are no blocks of one another")
    block: Count = Field(description="both runs of a block ran one after the other on the same device")
    position: Annotated[int, Field(ge=0, le=1)] = Field(description="0: the block's first run; 1: its second")


class RunSettings(Model):
    """The settings of a run that reach training. ``train`` has an option for each."""

    protocol: TrainingProtocol
    seed: Count
    epochs: Count
    batch_size: Count = Field(description="examples of a step, of all ranks together")
    learning_rate: Amount
    precision: Precision
    execution: Execution
    input: InputPath
    device: DeviceKind
    repeat: Number = Field(default=1, description="times that training is run; those after the first only measure")
    ranks: Number = Field(default=1, description="processes that trained together")
    reduction: Reduction | None = added("how the gradients were added: by shards in a fixed order, or in one sum")
    scaling: Scaling | None = added("what more ranks leave the same: the step's batch, or each rank's part of it")


class Config(RunSettings):
    """The settings, and what the job derived from them."""

    recipe: str
    framework: FrameworkName
    dataset: Dataset
    parameter_count: Count
    dropout: bool
    initializer: str
    optimizer: Optimizer
    numerics: Numerics
    design: Design | None = added("the run's place in a planned experiment (--design)")
