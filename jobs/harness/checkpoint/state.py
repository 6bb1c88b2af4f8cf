"""What a checkpoint says of a run, beside the trainer's own arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from jobs.harness.training import EpochOutcome
from jobs.report.schema import Count, EarlierAttempt, PhaseName, RunId

if TYPE_CHECKING:
    from jobs.harness.trainer import RunSpec
    from jobs.report import Report
    from jobs.report.schema import Config

Identity = dict[str, str | int | float]
"""What must be equal for a run to go on: its configuration, the data's hash, the framework and its version."""


def identity_of(config: Config | RunSpec, *, recipe: str, framework: str, dataset_sha256: str) -> Identity:
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


def identity_of_report(report: Report) -> Identity:
    """The same of a run that was reported."""
    config, framework = report.config, report.environment.framework
    return identity_of(
        config,
        recipe=config.recipe,
        framework=f"{framework.name} {framework.version}",
        dataset_sha256=config.dataset.sha256,
    )


PositiveInt = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    # A checkpoint may come from anywhere: what is not expected is refused.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")


class Spent(_Part):
    """Seconds that went into the phases of one name in one epoch."""

    name: PhaseName
    epoch: PositiveInt | None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class State(_Part):
    """Where a run stands: ``step`` steps of epoch ``epoch`` are done."""

    identity: Identity
    run_id: RunId
    attempt: PositiveInt
    epoch: PositiveInt
    step: Count
    epochs: list[EpochOutcome]
    examples_evaluated: Count | None
    spent: list[Spent]
    first_step_images: list[tuple[PositiveInt, Count]] = Field(
        description="epoch and images of each first step, one an attempt: they compile and are not steady training"
    )
    attempts: Annotated[list[EarlierAttempt], Field(min_length=1)] = Field(
        description="all attempts so far, the one that wrote this last"
    )
    saved_at_utc: AwareDatetime

    def to_text(self) -> str:
        return self.model_dump_json()


def parse_state(text: str) -> State:
    """Read :meth:`State.to_text`.

    Raises:
        ValueError: not a state, or one that contradicts itself.
    """
    state = State.model_validate_json(text)
    finished = [epoch.epoch for epoch in state.epochs]
    if finished != list(range(1, state.epoch)):
        raise ValueError(f"epoch {state.epoch} is in progress, but the finished ones are {finished}")
    return state


def differences(saved: Identity, wanted: Identity) -> list[str]:
    """The names in which two runs differ, with both values, in words."""

    def show(value: Any) -> str:
        return "missing" if value is None else str(value)

    names = sorted({*saved, *wanted})
    return [
        f"{name} is {show(saved.get(name))} there and {show(wanted.get(name))} here"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
