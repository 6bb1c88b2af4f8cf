"""What a checkpoint says of a run, beside the trainer's own arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from jobs.checkpoint.progress import EpochOutcome
from jobs.report.schema import Count, EarlierAttempt, PhaseName, RunId

if TYPE_CHECKING:
    from jobs.adapter import RunSpec
    from jobs.checkpoint.progress import Extent
    from jobs.report import Report
    from jobs.report.schema import Config

RunFingerprint = dict[str, str | int | float]
"""What must be equal for a run to go on: its configuration, the data's hash, the framework and its version."""


def identity_of(config: Config | RunSpec, *, recipe: str, framework: str, dataset_sha256: str) -> RunFingerprint:
    """The identity of a run with this configuration."""
    return {
        "framework": framework,
        "recipe": recipe,
        "protocol": config.protocol,
        "seed": config.seed,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "dataset_sha256": dataset_sha256,
        "precision": config.precision,
        "execution": config.execution,
        "input": config.input,
        "device": config.device,
    }


def identity_of_report(report: Report) -> RunFingerprint:
    """The same of a run that was reported."""
    config, framework = report.config, report.environment.framework
    return identity_of(
        config,
        recipe=config.recipe,
        framework=f"{framework.name} {framework.version}",
        dataset_sha256=config.dataset.sha256,
    )


LAST_ATTEMPT: Final = 10**9
PositiveInt = Annotated[int, Field(ge=1, le=LAST_ATTEMPT)]
LONGEST_S: Final = 1e9
CLOCK_S: Final = 1e-9
"""A phase takes no time at all, or some that a clock can tell; a speed is found by dividing by it."""


class _Part(BaseModel):
    # A checkpoint may come from anywhere: what is not expected is refused.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")


def _told_by_a_clock(seconds: float) -> float:
    if 0 < seconds < CLOCK_S:
        raise ValueError("no clock tells so short a time")
    return seconds


class PhaseTime(_Part):
    """Seconds that went into the phases of one name in one epoch."""

    name: PhaseName
    epoch: PositiveInt | None
    seconds: Annotated[float, Field(ge=0, le=LONGEST_S), AfterValidator(_told_by_a_clock)]


class CheckpointMetadata(_Part):
    """Where a run stands: ``step`` steps of epoch ``epoch`` are done."""

    identity: RunFingerprint
    run_id: RunId
    attempt: PositiveInt
    epoch: PositiveInt
    step: Count
    epochs: list[EpochOutcome]
    examples_evaluated: Count | None
    spent: list[PhaseTime]
    first_step_images: list[tuple[PositiveInt, Count]] = Field(
        description="epoch and images of each first step, one an attempt: they compile and are not steady training"
    )
    attempts: Annotated[list[EarlierAttempt], Field(min_length=1)] = Field(
        description="all attempts so far, the one that wrote this last"
    )
    saved_at_utc: AwareDatetime

    def to_text(self) -> str:
        return self.model_dump_json()


def parse_state(text: str) -> CheckpointMetadata:
    """Read :meth:`CheckpointMetadata.to_text`.

    Raises:
        ValueError: not a state, or one that contradicts itself.
    """
    state = CheckpointMetadata.model_validate_json(text)
    finished = [epoch.epoch for epoch in state.epochs]
    if finished != list(range(1, state.epoch)):
        raise ValueError(f"epoch {state.epoch} is in progress, but the finished ones are {finished}")
    if not all(0 <= epoch.accuracy_ratio <= 1 for epoch in state.epochs):
        raise ValueError("an accuracy is no share between 0 and 1")
    numbers = [attempt.attempt for attempt in state.attempts]
    if numbers != sorted({*numbers}) or numbers[-1] != state.attempt:
        raise ValueError(f"attempt {state.attempt} wrote it, but the attempts are {numbers}")
    if not all(seconds <= LONGEST_S for attempt in state.attempts for seconds in attempt.phases_s.values()):
        raise ValueError(f"an attempt took more than {LONGEST_S:g} s")
    return state


def check_extent(state: CheckpointMetadata, extent: Extent) -> None:
    """Compare how far the run has come with how far it can go.

    Raises:
        ValueError: it has come further, or has seen more than there is.
    """
    last = extent.epochs + 1
    if state.epoch > last or state.step > (extent.steps if state.epoch < last else 0):
        raise ValueError(
            f"it is {state.step} steps into epoch {state.epoch}, of {extent.epochs} epochs of {extent.steps} steps"
        )
    if state.examples_evaluated not in {None, extent.test_examples}:
        raise ValueError(f"{state.examples_evaluated} test images were evaluated, of {extent.test_examples}")
    first: dict[int, int] = {}
    for epoch, images in state.first_step_images:
        first[epoch] = first.get(epoch, 0) + images
    if any(epoch > extent.epochs or images > extent.train_examples for epoch, images in first.items()):
        raise ValueError(f"first steps had {first} images by epoch, of {extent.train_examples}")


def differences(saved: RunFingerprint, wanted: RunFingerprint) -> list[str]:
    """The names in which two runs differ, with both values, in words."""

    def show(value: Any) -> str:
        return "missing" if value is None else str(value)

    names = sorted({*saved, *wanted})
    return [
        f"{name} is {show(saved.get(name))} there and {show(wanted.get(name))} here"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
