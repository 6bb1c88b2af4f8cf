"""The training loop around a trainer: phases, progress, evaluation and how it may end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.harness.draw import epoch_order
from jobs.harness.interrupt import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.harness.console import Console
    from jobs.harness.data import DigitSet
    from jobs.harness.phases import PhaseRecorder
    from jobs.harness.telemetry import LiveReading
    from jobs.harness.trainer import RunSpec, Trainer
    from jobs.report.schema import Status


@dataclass(frozen=True, kw_only=True)
class EpochOutcome:
    """One finished epoch; losses may be infinite or not a number."""

    epoch: int
    train_loss: float
    test_loss: float
    accuracy_ratio: float


@dataclass(kw_only=True)
class Outcome:
    """How the training ended; ``reason`` is ``None`` when it completed."""

    status: Status = "completed"
    reason: str | None = None
    exit_code: int = 0
    epochs: list[EpochOutcome] = field(default_factory=list)
    examples_evaluated: int | None = None


def train(
    trainer: Trainer,
    spec: RunSpec,
    data: DigitSet,
    *,
    outcome: Outcome,
    recorder: PhaseRecorder,
    console: Console,
    check_interrupt: Callable[[], None],
    live: Callable[[], LiveReading],
) -> None:
    """Train and evaluate ``spec.epochs`` epochs, and record each in ``outcome`` as soon as it is done.

    An interruption or a divergence is an outcome, not an error; what an error leaves behind is still recorded.
    """
    steps = -(-len(data.train_images) // spec.batch_size)
    try:
        for epoch in range(1, spec.epochs + 1):
            check_interrupt()
            order = epoch_order(spec.seed, epoch, len(data.train_images)) if spec.protocol == "matched" else None
            label = f"epoch {epoch}/{spec.epochs}"
            recorder.enter("first_step" if epoch == 1 else "train", epoch=epoch)
            with console.epoch(label, steps, live) as show:
                train_loss = trainer.train_epoch(order, _step_hook(epoch, recorder, show, check_interrupt))
            recorder.enter("evaluate", epoch=epoch)
            evaluation = trainer.evaluate(data.test_images, data.test_labels)
            assert evaluation.examples == len(data.test_images), "every test image counts"
            outcome.examples_evaluated = evaluation.examples
            outcome.epochs.append(
                EpochOutcome(
                    epoch=epoch,
                    train_loss=train_loss,
                    test_loss=evaluation.loss,
                    accuracy_ratio=evaluation.accuracy_ratio,
                )
            )
            console.line(
                f"{label}  train loss {train_loss:.4f}  test loss {evaluation.loss:.4f}  "
                f"test accuracy {evaluation.accuracy_ratio:.4f}  "
                f"{recorder.total_s('first_step', 'train', epoch=epoch):.1f} s"
            )
            if not math.isfinite(train_loss):
                outcome.status = "diverged"
                outcome.reason = f"the training loss of epoch {epoch} is {train_loss}; try a smaller --learning-rate"
                break
    except Interrupted as interruption:
        outcome.status = "interrupted"
        outcome.reason = f"{interruption} after {len(outcome.epochs)} of {spec.epochs} epochs"
        outcome.exit_code = interruption.exit_code


def _step_hook(
    epoch: int, recorder: PhaseRecorder, show: Callable[[int], None], check_interrupt: Callable[[], None]
) -> Callable[[int], None]:
    compiling = epoch == 1

    def on_step(done: int) -> None:
        nonlocal compiling
        if compiling:
            recorder.enter("train", epoch=epoch)
            compiling = False
        show(done)
        check_interrupt()

    return on_step
