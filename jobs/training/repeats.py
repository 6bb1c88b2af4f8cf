"""Repeats training only to measure it (``--repeat``), so that a short run is long enough for speed and GPU figures."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from jobs.report.repeats import Repeats
from jobs.training.loop import TrainingEnd, images_in_steps
from jobs.training.seeding import epoch_order
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from jobs.adapter import RunSpec, Trainer
    from jobs.phases import PhaseRecorder
    from jobs.training.loop import LoopContext

MAX_ORDERS: Final = 128
"""Orders of images kept in memory, one per epoch: 31 MB for MNIST. To draw one takes milliseconds."""


class RepeatedTraining:
    """The trainings after the first. Each starts from the initial state of ``trainer`` and is not evaluated.

    Weights, optimizer and random numbers are set back, so that each does the work of the first one. The phases have
    one ``train`` for all of them. So its GPU figures have no gaps, and its counters are read at two ends only.
    """

    def __init__(self, trainer: Trainer, spec: RunSpec) -> None:
        """Keep the initial state; to be made before anything is loaded into ``trainer``."""
        self._wanted = spec.repeat
        self._initial: dict[str, NDArray[Any]] = trainer.state() if spec.repeat > 1 else {}
        self._finished = 0
        self._images = 0
        self._between_s = 0.0

    def run(self, loop: LoopContext) -> TrainingEnd:
        """Train once more until there are ``spec.repeat`` trainings. The first has ended, and is saved and exported.

        No checkpoint is written: after an interruption the run resumes after its first training, and repeats anew.
        """
        if self._wanted == 1:
            return TrainingEnd()
        try:
            return self._run(loop)
        except Interrupted as interruption:
            return TrainingEnd(
                status="interrupted",
                reason=f"{interruption} in training {self._finished + 2} of {self._wanted} (--repeat); the results "
                "are the first one's",
                exit_code=interruption.exit_code,
            )

    def results(self, recorder: PhaseRecorder) -> Repeats | None:
        """What was measured, for the report; ``None`` where training was not to be repeated."""
        if self._wanted == 1:
            return None
        train_s = sum(span.duration_s for span in recorder.spans if span.name == "train" and span.epoch is None)
        # A difference of two clock readings may be below zero by rounding.
        return Repeats(
            trainings=self._finished,
            images=self._images,
            train_s=max(0.0, train_s - self._between_s),
            between_s=self._between_s,
        )

    def _run(self, loop: LoopContext) -> TrainingEnd:
        spec, recorder = loop.spec, loop.recorder
        order_of = lru_cache(MAX_ORDERS)(partial(epoch_order, spec.seed, examples=loop.extent.train_examples))
        recorder.enter("build")
        loop.trainer.load_state(self._initial)
        loop.check_interrupt()
        # A run that resumed after its last step has not compiled in this process.
        compiling = not any(span.name == "first_step" for span in recorder.spans)
        recorder.enter("first_step" if compiling else "train")
        for number in range(2, self._wanted + 1):
            label = f"training {number}/{self._wanted}, measured only"
            with loop.console.epoch(label, spec.epochs * loop.extent.steps, loop.live) as show:
                for epoch in range(1, spec.epochs + 1):
                    with self._between(loop.trainer):
                        if epoch == 1 and number > 2:
                            loop.trainer.load_state(self._initial)
                        order = order_of(epoch) if spec.protocol == "matched" else None
                    hook = self._step_hook(loop, show, (epoch - 1) * loop.extent.steps, compiling=compiling)
                    compiling = False
                    train_loss = loop.trainer.train_epoch(order, hook, epoch=epoch, stop_every=loop.checkpoint_steps)
                    if not math.isfinite(train_loss):
                        return TrainingEnd(
                            status="diverged",
                            reason=f"the training loss of epoch {epoch} is {train_loss} in training {number} of "
                            f"{self._wanted} (--repeat), and was finite in the first: check the device with doctor",
                        )
            self._finished += 1
        return TrainingEnd()

    def _step_hook(
        self, loop: LoopContext, show: Callable[[int], None], earlier_steps: int, *, compiling: bool
    ) -> Callable[[int], None]:
        earlier_images = self._images

        def on_step(done: int) -> None:
            nonlocal compiling, earlier_images
            images = images_in_steps(loop, 0, done)
            if compiling:
                loop.recorder.enter("train")
                earlier_images -= images
                compiling = False
            self._images = earlier_images + images
            show(earlier_steps + done)
            loop.check_interrupt()

        return on_step

    @contextmanager
    def _between(self, trainer: Trainer) -> Iterator[None]:
        """Count this time as no training; the device is synchronised at both ends."""
        trainer.synchronize()
        started_s = time.monotonic()
        yield
        trainer.synchronize()
        self._between_s += time.monotonic() - started_s
