"""The training loop around a trainer: phases, progress, checkpoints, evaluation and interruption."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from jobs.adapter import Evaluation
from jobs.report.schema import EpochResult
from jobs.training.seeding import epoch_order
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec, Trainer
    from jobs.checkpoint.metadata import Extent, TrainingProgress
    from jobs.checkpoint.store import CheckpointStore
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder
    from jobs.report.schema import Status
    from jobs.telemetry.types import LiveReading
    from jobs.training.console import Console
    from jobs.training.rank_session import RankSession


@dataclass(frozen=True, kw_only=True)
class LoopContext:
    """The loop's inputs, the same for every epoch."""

    trainer: Trainer
    spec: RunSpec
    data: ImageDataset
    extent: Extent
    recorder: PhaseRecorder
    console: Console
    check_interrupt: Callable[[], None]
    live: Callable[[], LiveReading]
    store: CheckpointStore | None
    session: RankSession | None = None
    """Set where training uses shards, on one rank or several."""

    @property
    def checkpoint_steps(self) -> int | None:
        return self.store.every_steps if self.store is not None else None


@dataclass(frozen=True, kw_only=True)
class TrainingEnd:
    """How training ended; ``reason`` is ``None`` when it completed."""

    status: Status = "completed"
    reason: str | None = None
    exit_code: int = 0


def train(loop: LoopContext, progress: TrainingProgress) -> TrainingEnd:
    """Train and evaluate from ``progress`` to the last epoch, and update ``progress`` after each epoch.

    Interruption and divergence are returned, not raised. After an error ``progress`` is what was reached.
    """
    last, compiled = loop.spec.epochs, False
    try:
        while progress.epoch <= last:
            loop.check_interrupt()
            epoch, compiling = progress.epoch, not compiled and progress.step < loop.extent.steps
            train_loss = _epoch(loop, progress, compiling=compiling)
            compiled = compiled or compiling
            if not math.isfinite(train_loss):
                reason = f"the training loss of epoch {epoch} is {train_loss}; try a smaller --learning-rate"
                return TrainingEnd(status="diverged", reason=reason)
            _save(loop, progress, epoch)
    except Interrupted as interruption:
        _save(loop, progress, min(progress.epoch, last))
        return TrainingEnd(
            status="interrupted",
            reason=f"{interruption} after {len(progress.epochs)} of {last} epochs",
            exit_code=interruption.exit_code,
        )
    return TrainingEnd()


def _epoch(loop: LoopContext, progress: TrainingProgress, *, compiling: bool) -> float:
    """Train the rest of the epoch in progress, evaluate it, add it to ``progress``, and return its training loss."""
    spec, recorder, epoch = loop.spec, loop.recorder, progress.epoch
    order = epoch_order(spec.seed, epoch, loop.extent.train_examples) if spec.protocol == "matched" else None
    label = f"epoch {epoch}/{spec.epochs}"
    recorder.enter("first_step" if compiling else "train", epoch=epoch)
    with loop.console.epoch(label, loop.extent.steps, loop.live) as show:
        train_loss = loop.trainer.train_epoch(
            order,
            _step_hook(loop, progress, show, compiling=compiling),
            epoch=epoch,
            done=progress.step,
            stop_every=loop.checkpoint_steps,
        )
    recorder.enter("evaluate", epoch=epoch)
    evaluation = _evaluate(loop, epoch)
    assert evaluation.examples == loop.extent.test_examples, "every test image is evaluated"
    wall_s = progress.wall_s(recorder)
    loop.console.line(
        f"{label}  train loss {train_loss:.4f}  test loss {evaluation.loss:.4f}  "
        f"test accuracy {evaluation.accuracy_ratio:.4f}  {wall_s:.1f} s"
    )
    result = EpochResult(
        epoch=epoch,
        wall_s=wall_s,
        train_loss=_finite(train_loss),
        test_loss=_finite(evaluation.loss),
        test_accuracy_ratio=evaluation.accuracy_ratio,
    )
    progress.examples_evaluated = evaluation.examples
    progress.finish_epoch(result, progress.epoch_steady_s(recorder), loop.extent.train_examples)
    return train_loss


def _evaluate(loop: LoopContext, epoch: int) -> Evaluation:
    """The evaluation after ``epoch``. Of several ranks the first makes it, and the others wait."""
    data, session = loop.data, loop.session

    def evaluate() -> Evaluation:
        return loop.trainer.evaluate(data.test_images, data.test_labels, check=loop.check_interrupt)

    if session is None:
        return evaluate()
    return Evaluation(**session.finish_epoch(loop.trainer, epoch, lambda: asdict(evaluate())))


def _step_hook(
    loop: LoopContext, progress: TrainingProgress, show: Callable[[int], None], *, compiling: bool
) -> Callable[[int], None]:
    every, recorder, epoch = loop.checkpoint_steps, loop.recorder, progress.epoch
    start = progress.step

    def on_step(done: int) -> None:
        nonlocal compiling
        progress.step = done
        if compiling:
            recorder.enter("train", epoch=epoch)
            progress.first_step_images += images_in_steps(loop, start, done)
            compiling = False
        show(done)
        if every is not None and done % every == 0 and done < loop.extent.steps:
            _save(loop, progress, epoch)
            recorder.enter("train", epoch=epoch)
        loop.check_interrupt()

    return on_step


def images_in_steps(loop: LoopContext, start: int, stop: int) -> int:
    """Images in the steps from ``start`` to before ``stop``; an epoch's last step may have fewer."""
    batch = loop.spec.batch_size
    return min(stop * batch, loop.extent.train_examples) - start * batch


def _save(loop: LoopContext, progress: TrainingProgress, epoch: int) -> None:
    """Write a checkpoint in a separate phase, so that its time does not count as training."""
    if loop.store is not None and (loop.session is None or loop.session.is_first):
        loop.recorder.enter("checkpoint", epoch=epoch)
        loop.store.save(loop.trainer, progress, loop.recorder)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
