"""One attempt of a run after another: what the next one takes over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from jobs.checkpoint.metadata import CheckpointMetadata
    from jobs.checkpoint.progress import TrainingProgress
    from jobs.phases import PhaseRecorder
    from jobs.report.schema import EarlierAttempt


@dataclass(frozen=True, kw_only=True)
class HardwareInfo:
    """What an attempt ran on."""

    device: str
    cpu_model: str | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a run, and those before it."""

    run_id: str
    number: int
    started_at: datetime
    earlier: list[EarlierAttempt] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A run as its last good checkpoint has it; the trainer has taken up its arrays."""

    path: Path
    state: CheckpointMetadata

    def next_attempt(self, started_at: datetime) -> Attempt:
        state = self.state
        return Attempt(
            run_id=state.run_id, number=state.attempt + 1, started_at=started_at, earlier=list(state.attempts)
        )

    def restore(self, outcome: TrainingProgress, recorder: PhaseRecorder) -> None:
        """Put back how far the run had come, and the time it had taken."""
        state = self.state
        outcome.epoch, outcome.step = state.epoch, state.step
        outcome.epochs = list(state.epochs)
        outcome.examples_evaluated = state.examples_evaluated
        outcome.first_step_images = list(state.first_step_images)
        recorder.carry({(spent.name, spent.epoch): spent.seconds for spent in state.spent})

    def hardware_changes(self, here: HardwareInfo) -> str | None:
        """What is not as it was at some earlier attempt, in words."""
        found = []
        for what, before, now in (
            ("the device", {one.device for one in self.state.attempts}, here.device),
            ("the CPU", {one.cpu_model for one in self.state.attempts}, here.cpu_model),
        ):
            others = sorted(str(name) for name in before - {now})
            if others:
                found.append(f"{what} was {' and '.join(map(repr, others))} and is {now!r}")
        return f"{' and '.join(found)}: the run's speed is of all" if found else None
