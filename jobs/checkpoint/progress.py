"""How far a run has come: what a checkpoint keeps of it beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.adapter import RunSpec
    from jobs.datasets import ImageDataset
    from jobs.report.schema import Status


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much there is to train."""

    epochs: int
    steps: int
    """An epoch."""
    train_examples: int
    test_examples: int


def extent_of(spec: RunSpec, data: ImageDataset) -> Extent:
    examples = len(data.train_images)
    return Extent(
        epochs=spec.epochs,
        steps=-(-examples // spec.batch_size),
        train_examples=examples,
        test_examples=len(data.test_images),
    )


@dataclass(frozen=True, kw_only=True)
class EpochOutcome:
    """One finished epoch; losses may be infinite or not a number."""

    epoch: int
    train_loss: float
    test_loss: float
    accuracy_ratio: float


@dataclass(kw_only=True)
class TrainingProgress:
    """How far training came, and how it ended; ``reason`` is ``None`` when it completed."""

    status: Status = "completed"
    reason: str | None = None
    exit_code: int = 0
    epoch: int = 1
    """The epoch in progress; one past the last when all are done."""
    step: int = 0
    """Steps of it that are done."""
    epochs: list[EpochOutcome] = field(default_factory=list)
    examples_evaluated: int | None = None
    first_step_images: list[tuple[int, int]] = field(default_factory=list)
    """Epoch and images of each attempt's first step, which compiles and is no steady training."""
