"""What only the device can show of this adapter: a captured step computes the bits of the same step run eagerly."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from jobs.adapter import DeviceCheck, RunSpec
from jobs.adapter_common import CHECK_STEPS, check_agreement
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.recipes import RECIPES
from jobs.training.seeding import epoch_order, initial_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from jobs.adapter import DeviceKind
    from jobs.datasets import ImageDataset

SEED: Final = 1
TIMED_EPOCHS: Final = 5


def device_checks(device: DeviceKind, data: ImageDataset) -> tuple[DeviceCheck, ...]:
    """See :meth:`jobs.adapter.Framework.device_checks`."""
    specs = [RunSpec.for_recipe(recipe, device=device, execution="graph") for recipe in RECIPES.values()]
    return tuple(
        DeviceCheck(name=f"{spec.recipe.name}, captured steps", run=partial(_captured_steps, spec, data))
        for spec in specs
    )


def _captured_steps(spec: RunSpec, data: ImageDataset) -> str:
    """Eager steps twice, to see that the device repeats its bits, and then captured ones."""
    with _repeatable_convolutions():
        eager, eager_step_s = _train(spec, data, captured=False)
        repeated, _ = _train(spec, data, captured=False)
        check_agreement(eager, repeated, names=("eager steps", "the same eager steps again"))
        captured, captured_step_s = _train(spec, data, captured=True)
        check_agreement(eager, captured, names=("eager steps", "captured steps"))
    return (
        f"{CHECK_STEPS} captured steps equal eager steps bit for bit in all {len(eager)} arrays of the training state; "
        f"{1e3 * captured_step_s:.3f} ms a step captured, {1e3 * eager_step_s:.3f} ms eager, "
        "both with cuDNN's deterministic kernels, which a training does not ask for"
    )


def _train(spec: RunSpec, data: ImageDataset, *, captured: bool) -> tuple[dict[str, NDArray[Any]], float]:
    """The training state after one epoch and after a second one, and the fastest later epoch's seconds per step."""
    trainer = TorchTrainer(spec, data, capture=captured)
    trainer.load_weights(initial_weights(spec.recipe, SEED))
    state: dict[str, NDArray[Any]] = {}
    for epoch in (1, 2):
        trainer.train_epoch(_order(epoch, data), lambda _: None, epoch=epoch)
        state |= {f"{name} of epoch {epoch}": array for name, array in trainer.state().items()}
    steps = math.ceil(len(data.train_images) / spec.batch_size)
    return state, min(_step_s(trainer, _order(3, data), steps) for _ in range(TIMED_EPOCHS))


def _step_s(trainer: TorchTrainer, order: NDArray[np.int32], steps: int) -> float:
    """Seconds per step of an epoch, from the end of its first step to that of its last one.

    An epoch begins with the transfer of its order and reads its loss at the end; neither is counted.
    """
    end_s: dict[int, float] = {}

    def note_end(step: int) -> None:
        # Waiting for each step would add the time of its launch.
        if step in {1, steps}:
            trainer.synchronize()
            end_s[step] = time.perf_counter()

    trainer.train_epoch(order, note_end, epoch=1)
    return (end_s[steps] - end_s[1]) / (steps - 1)


def _order(epoch: int, data: ImageDataset) -> NDArray[np.int32]:
    return epoch_order(SEED, epoch, len(data.train_images))


@contextmanager
def _repeatable_convolutions() -> Iterator[None]:
    """Let cuDNN use only kernels that give the same bits each time; others may add in any order."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
