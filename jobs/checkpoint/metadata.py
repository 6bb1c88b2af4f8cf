"""A checkpoint's metadata: the run's fingerprint, its progress, and its attempts so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jobs.report.configuration import Count, Number, RunId
from jobs.report.schema import EarlierAttempt, EpochResult, Report

if TYPE_CHECKING:
    from datetime import datetime

    from jobs.adapter import RunSpec
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder

RunFingerprint = dict[str, str]
"""The settings that must be equal to resume a run; see :func:`jobs.training.request.run_fingerprint`."""

MIN_S, MAX_S = 1e-12, 1e9
"""The smallest and largest plausible time, except 0."""
MAX_ATTEMPT = 10**9
MAX_DIFFERENCES = 8
"""Differences named in an error message."""


def _check_seconds(seconds: float) -> float:
    # Images per second are computed by dividing by it.
    if seconds != 0 and not MIN_S <= seconds <= MAX_S:
        raise ValueError(f"a time of {seconds:g} s is not plausible")
    return seconds


Seconds = Annotated[float, AfterValidator(_check_seconds)]


def _check_attempts(attempts: list[EarlierAttempt]) -> list[EarlierAttempt]:
    numbers = [attempt.attempt for attempt in attempts]
    if numbers != sorted({*numbers}):
        raise ValueError(f"the attempts are {numbers[:MAX_DIFFERENCES]}, and should rise")
    if numbers[-1] > MAX_ATTEMPT:
        raise ValueError(f"its last attempt is not plausible: the largest number is {MAX_ATTEMPT}")
    for attempt in attempts:
        for seconds in attempt.phases_s.values():
            _check_seconds(seconds)
    return attempts


Attempts = Annotated[list[EarlierAttempt], Field(min_length=1), AfterValidator(_check_attempts)]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a run trains and evaluates."""

    epochs: int
    steps: int
    """Steps of one epoch."""
    train_examples: int
    test_examples: int


def extent_of(spec: RunSpec, data: ImageDataset) -> Extent:
    examples = len(data.train_images)
    steps = -(-examples // spec.batch_size)
    return Extent(epochs=spec.epochs, steps=steps, train_examples=examples, test_examples=len(data.test_images))


class TrainingProgress(BaseModel):
    """A run's progress, over all its attempts."""

    model_config = ConfigDict(extra="forbid")

    epoch: Number = 1
    """The epoch in progress; one past the last when all are done."""
    step: Count = 0
    """Completed steps of that epoch."""
    epochs: list[EpochResult] = []
    """The finished epochs."""
    examples_evaluated: Count | None = None
    steady_images: Count = 0
    """Images of the finished epochs' ``train`` phases, without each attempt's first step, which compiles."""
    steady_s: Seconds = 0.0
    first_step_images: Count = 0
    """Images of the first steps that attempts took in the epoch in progress."""
    earlier_wall_s: Seconds = 0.0
    """Training time of earlier attempts in the epoch in progress."""
    earlier_steady_s: Seconds = 0.0
    """The part of it in ``train`` phases."""

    def wall_s(self, recorder: PhaseRecorder) -> float:
        """Training time of the epoch in progress so far, in all attempts."""
        return self.earlier_wall_s + recorder.total_s("first_step", "train", epoch=self.epoch)

    def epoch_steady_s(self, recorder: PhaseRecorder) -> float:
        return self.earlier_steady_s + recorder.total_s("train", epoch=self.epoch)

    def snapshot(self, recorder: PhaseRecorder) -> TrainingProgress:
        """The progress for a checkpoint, in which this attempt's times are those of an earlier one."""
        times = {"earlier_wall_s": self.wall_s(recorder), "earlier_steady_s": self.epoch_steady_s(recorder)}
        return self.model_copy(update={"epochs": list(self.epochs), **times})

    def finish_epoch(self, result: EpochResult, steady_s: float, train_examples: int) -> None:
        """Add the epoch in progress to the finished ones and go to the next."""
        self.epochs.append(result)
        self.steady_s += steady_s
        self.steady_images += train_examples - self.first_step_images
        self.epoch, self.step, self.first_step_images = self.epoch + 1, 0, 0
        self.earlier_wall_s = self.earlier_steady_s = 0.0

    def check(self, extent: Extent) -> None:
        """Check that the progress is possible in a run of ``extent``.

        Raises:
            ValueError: it is not; the message names the impossible value.
        """
        finished = [epoch.epoch for epoch in self.epochs]
        if finished != list(range(1, self.epoch)):
            raise ValueError(f"epoch {self.epoch} is in progress, but the finished epochs are {finished}")
        last = extent.epochs + 1
        if self.epoch > last or self.step > (extent.steps if self.epoch < last else 0):
            raise ValueError(
                f"it is {self.step} steps into epoch {self.epoch}, of {extent.epochs} epochs of {extent.steps} steps"
            )
        if self.examples_evaluated not in {None, extent.test_examples}:
            raise ValueError(f"{self.examples_evaluated} test images were evaluated, of {extent.test_examples}")
        for images, epochs in ((self.first_step_images, 1), (self.steady_images, len(finished))):
            if images > extent.train_examples * epochs:
                raise ValueError(f"{images} images were trained in {epochs} epochs of {extent.train_examples}")
        for epoch in self.epochs:
            _check_seconds(epoch.wall_s)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of a run, its hardware, and the attempts before it."""

    run_id: str
    number: int = 1
    started_at: datetime
    device: str
    cpu_model: str | None
    earlier: list[EarlierAttempt] = field(default_factory=list)

    def hardware_changes(self) -> str | None:
        """The differences from the hardware of earlier attempts, in words; ``None`` if there are none."""
        changes = []
        for what, before, now in (
            ("the device", {attempt.device for attempt in self.earlier}, self.device),
            ("the CPU", {attempt.cpu_model for attempt in self.earlier}, self.cpu_model),
        ):
            others = sorted(str(name) for name in before - {now})
            if others:
                changes.append(f"{what} was {' and '.join(map(repr, others))} and is {now!r}")
        return f"{' and '.join(changes)}: the run's speed is that of all attempts together" if changes else None


class CheckpointMetadata(BaseModel):
    """The text part of a checkpoint. Unknown fields are refused, since the file may come from an untrusted source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: RunFingerprint
    run_id: RunId
    progress: TrainingProgress
    attempts: Attempts = Field(description="the one that wrote this checkpoint last")

    def check(self, extent: Extent) -> None:
        """Check that a run of ``extent`` can be resumed from it.

        Raises:
            ValueError: it cannot; the message names the impossible value.
        """
        self.progress.check(extent)
        if self.attempts[-1].attempt == MAX_ATTEMPT:
            raise ValueError(f"attempt {MAX_ATTEMPT} wrote it, and no later one is possible")


class FinishedRun(BaseModel):
    """A finished run's report in the checkpoint folder, so that the same command can return it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: RunFingerprint
    report: Report


def differences(saved: RunFingerprint, wanted: RunFingerprint) -> str:
    """The fields in which two runs differ, with both values, in words; empty if they are equal."""
    lines = [
        f"{name} is {saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} here"
        for name in sorted({*saved, *wanted})
        if saved.get(name) != wanted.get(name)
    ]
    more = f"; and {len(lines) - MAX_DIFFERENCES} more" if len(lines) > MAX_DIFFERENCES else ""
    return "; ".join(lines[:MAX_DIFFERENCES]) + more
