"""Measures rank 0 alone in the same job, before and after all ranks train (``--with-baseline``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from jobs.checkpoint.metadata import extent_of
from jobs.ranks.group import RankGroup
from jobs.report.ranks import OneRankPart, OneRankTraining
from jobs.training.seeding import epoch_order, initial_weights
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.phases import PhaseRecorder
    from jobs.training.setup import RunSetup
    from jobs.training.signals import InterruptGuard


def one_rank_parts(
    setup: RunSetup, position: Literal["before", "after"], recorder: PhaseRecorder, guard: InterruptGuard
) -> list[OneRankPart]:
    """What rank 0 alone does, while the others wait; only where it was asked for.

    A signal to rank 0 ends a measurement after training, whose results are complete without it.
    """
    session = setup.session
    if not setup.request.with_baseline or session is None:
        return []
    recorder.enter("build")

    def measure() -> list[dict[str, Any]]:
        try:
            return [_measure(setup, position, guard.check).model_dump()]
        except Interrupted:
            if position == "before":
                raise
            return []

    return [OneRankPart.model_validate(part) for part in session.from_first(measure)]


def _measure(setup: RunSetup, position: Literal["before", "after"], check: Callable[[], None]) -> OneRankPart:
    """Train one epoch by this rank alone, with the same reduction, and discard the weights.

    The batch is that of a step (strong scaling), or of one rank (weak scaling). The first step is not counted.
    """
    spec, data = setup.spec, setup.data
    batch_size = spec.batch_size // spec.ranks if spec.scaling == "weak" else spec.batch_size
    alone = spec.replace(ranks=1, scaling=None, epochs=1, batch_size=batch_size)
    extent = extent_of(alone, data)
    trainer = setup.framework.create_trainer(alone, data, RankGroup())
    trainer.load_weights(initial_weights(spec.recipe, spec.seed))
    started: tuple[int, float] | None = None
    steps = 0

    def on_step(done: int) -> None:
        nonlocal started, steps
        check()
        steps = done
        if started is None:
            trainer.synchronize()
            started = done, time.monotonic()

    trainer.train_epoch(epoch_order(spec.seed, 1, extent.train_examples), on_step, epoch=1)
    trainer.synchronize()
    assert started is not None, "an epoch has a step"
    first, start_s = started
    images = min(steps * batch_size, extent.train_examples) - min(first * batch_size, extent.train_examples)
    return OneRankPart(position=position, images=images, train_s=time.monotonic() - start_s)


def one_rank_training(parts: Sequence[OneRankPart]) -> OneRankTraining | None:
    """All parts together; ``None`` where nothing was timed, as in an epoch of one step."""
    images, train_s = sum(part.images for part in parts), sum(part.train_s for part in parts)
    if not images or train_s <= 0:
        return None
    return OneRankTraining(images_per_s=images / train_s, parts=list(parts))
