"""The training loop around a trainer: phases, progress, checkpoints, evaluation and how it may end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.checkpoint.progress import EpochOutcome, extent_of
from jobs.training.seeding import epoch_order
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec, Trainer
    from jobs.checkpoint.progress import TrainingProgress
    from jobs.checkpoint.store import CheckpointStore, NullCheckpointStore
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder
    from jobs.telemetry.types import LiveReading
    from jobs.training.console import Console


@dataclass(frozen=True, kw_only=True)
class LoopContext:
    """What the loop works with, the same for every epoch."""

    trainer: Trainer
    spec: RunSpec
    data: ImageDataset
    recorder: PhaseRecorder
    console: Console
    check_interrupt: Callable[[], None]
    live: Callable[[], LiveReading]
    keeper: CheckpointStore | NullCheckpointStore

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return extent_of(self.spec, self.data).steps


def train(loop: LoopContext, outcome: TrainingProgress) -> None:
    """Train and evaluate from where ``outcome`` stands to the last epoch; each is recorded as soon as it is done.

    An interruption or a divergence is an outcome, not an error; what an error leaves behind is still recorded.
    """
    last, compiled = loop.spec.epochs, False
    try:
        while outcome.epoch <= last and outcome.status == "completed":
            loop.check_interrupt()
            compiling = not compiled and outcome.step < loop.steps
            finished = _epoch(loop, outcome, compiling=compiling)
            compiled = compiled or compiling
            outcome.epochs.append(finished)
            if not math.isfinite(finished.train_loss):
                outcome.status = "diverged"
                outcome.reason = (
                    f"the training loss of epoch {finished.epoch} is {finished.train_loss}; "
                    "try a smaller --learning-rate"
                )
                return
            outcome.epoch, outcome.step = outcome.epoch + 1, 0
            _save(loop, outcome, finished.epoch)
    except Interrupted as interruption:
        _save(loop, outcome, min(outcome.epoch, last))
        outcome.status = "interrupted"
        outcome.reason = f"{interruption} after {len(outcome.epochs)} of {last} epochs"
        outcome.exit_code = interruption.exit_code


def _epoch(loop: LoopContext, outcome: TrainingProgress, *, compiling: bool) -> EpochOutcome:
    """Train what is left of the epoch in progress, and evaluate it."""
    spec, data, recorder, epoch = loop.spec, loop.data, loop.recorder, outcome.epoch
    order = epoch_order(spec.seed, epoch, len(data.train_images)) if spec.protocol == "matched" else None
    label = f"epoch {epoch}/{spec.epochs}"
    recorder.enter("first_step" if compiling else "train", epoch=epoch)
    with loop.console.epoch(label, loop.steps, loop.live) as show:
        train_loss = loop.trainer.train_epoch(
            order,
            _step_hook(loop, outcome, show, compiling=compiling),
            epoch=epoch,
            done=outcome.step,
            stop_every=loop.keeper.every_steps,
        )
    recorder.enter("evaluate", epoch=epoch)
    evaluation = loop.trainer.evaluate(data.test_images, data.test_labels, check=loop.check_interrupt)
    assert evaluation.examples == len(data.test_images), "every test image counts"
    outcome.examples_evaluated = evaluation.examples
    loop.console.line(
        f"{label}  train loss {train_loss:.4f}  test loss {evaluation.loss:.4f}  "
        f"test accuracy {evaluation.accuracy_ratio:.4f}  "
        f"{recorder.total_s('first_step', 'train', epoch=epoch):.1f} s"
    )
    return EpochOutcome(
        epoch=epoch, train_loss=train_loss, test_loss=evaluation.loss, accuracy_ratio=evaluation.accuracy_ratio
    )


def _step_hook(
    loop: LoopContext, outcome: TrainingProgress, show: Callable[[int], None], *, compiling: bool
) -> Callable[[int], None]:
    every, recorder, epoch = loop.keeper.every_steps, loop.recorder, outcome.epoch
    before = outcome.step

    def on_step(done: int) -> None:
        nonlocal compiling
        outcome.step = done
        if compiling:
            recorder.enter("train", epoch=epoch)
            outcome.first_step_images.append((epoch, _images(loop, before, done)))
            compiling = False
        show(done)
        if every is not None and done % every == 0 and done < loop.steps:
            _save(loop, outcome, epoch)
            recorder.enter("train", epoch=epoch)
        loop.check_interrupt()

    return on_step


def _images(loop: LoopContext, first: int, stop: int) -> int:
    """Images in the steps from ``first`` to before ``stop``: the last one of an epoch may have fewer."""
    batch, examples = loop.spec.batch_size, len(loop.data.train_images)
    return min(stop * batch, examples) - first * batch


def _save(loop: LoopContext, outcome: TrainingProgress, epoch: int) -> None:
    """A phase of its own, so that it is never counted as training."""
    if loop.keeper.keeps:
        loop.recorder.enter("checkpoint", epoch=epoch)
        loop.keeper.save(loop.trainer, outcome, loop.recorder)
