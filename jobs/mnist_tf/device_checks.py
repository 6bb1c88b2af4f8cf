"""What only the device can show of this adapter: XLA and graph compute the same, and which of the two is faster."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf

from jobs.adapter import DeviceCheck, RunSpec
from jobs.adapter_common import CHECK_STEPS, check_agreement
from jobs.errors import NotMeasured
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.recipes import RECIPES
from jobs.training.seeding import epoch_order, initial_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from jobs.adapter import DeviceKind, Execution
    from jobs.datasets import ImageDataset

SEED: Final = 1
TOLERANCE: Final = 1e-9
"""In float64; the two order their sums differently, and training amplifies each rounding of 1e-16."""
TIMED_EPOCHS: Final = 5
TIMED_STEPS: Final = 256
"""Of an epoch of which the longest call is timed: half of them, enough that a call's own cost hardly counts."""
XLA_NEEDS: Final = {
    "libdevice": "CUDA's libdevice",
    "ptxas": "CUDA's ptxas",
    "nvlink": "CUDA's nvlink",
    "nvjitlink": "CUDA's nvJitLink",
}
"""What XLA takes from the CUDA toolkit to compile for a GPU, by the word in its message."""
INSTALL: Final = "run the image mnist-tf, or install the tf-cuda extra, which has it (nvidia-cuda-nvcc)"
CLEARLY_FASTER: Final = 1.03
"""As in a comparison: a smaller difference is not called one."""


def device_checks(device: DeviceKind, data: ImageDataset) -> tuple[DeviceCheck, ...]:
    """See :meth:`jobs.adapter.Framework.device_checks`."""
    return tuple(
        DeviceCheck(name=f"{recipe.name}, {name}", run=partial(check, spec, data))
        for name, check in (("XLA and graph", _agreement), ("fastest execution", _fastest))
        for recipe in RECIPES.values()
        for spec in [RunSpec.for_recipe(recipe, device=device, execution="graph")]
    )


def _agreement(spec: RunSpec, data: ImageDataset) -> str:
    """In float64, since in a coarser precision Adam makes a whole step of a tiny gradient's rounding; without dropout,
    since XLA draws other random numbers.
    """
    exact = spec.without_dropout().replace(precision="fp64")
    graph = _trained(exact.replace(execution="graph"), data)
    with _xla_may_lack():
        compiled = _trained(exact.replace(execution="compiled"), data)
    difference = check_agreement(graph, compiled, names=("graph", "XLA"), tolerance=TOLERANCE)
    return (
        f"{CHECK_STEPS} steps by XLA and by graph agree in float64: {len(graph)} arrays differ by at most "
        f"{difference:.1e} of their largest value ({TOLERANCE:.0e} allowed)"
    )


@contextmanager
def _xla_may_lack() -> Iterator[None]:
    """Turn an error of the compiled step into a note: jobs run as graphs by default, and these did run.

    Streamed input is compiled by default, so the note says what to do about it. A GPU that fails altogether also fails
    the checks that follow.

    Raises:
        NotMeasured: XLA could not compile the step, as without ptxas, the assembler of CUDA.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:
        text = " ".join(str(error).split())
        missing = next((cause for word, cause in XLA_NEEDS.items() if word in text.lower()), None)
        fix = f"it lacks {missing}: {INSTALL}, or " if missing else ""
        raise NotMeasured(
            f"not measured: XLA cannot compile the step; {fix}choose --execution graph, "
            f"which is the default except with --input streamed. XLA says: {text[:300]}"
        ) from error


def _trained(spec: RunSpec, data: ImageDataset) -> dict[str, NDArray[Any]]:
    trainer = _trainer(spec, data)
    trainer.train_epoch(_order(1, data), lambda _: None, epoch=1)
    return trainer.weights() | {"loss": trainer.state()["loss_total"]}


def _fastest(spec: RunSpec, data: ImageDataset) -> str:
    ways: tuple[Execution, ...] = ("graph", "compiled")
    trainers = {way: _trainer(spec.replace(execution=way), data) for way in ways}
    order = np.resize(_order(1, data), TIMED_STEPS * spec.batch_size)
    first_s = {"graph": _first_and_step_s(trainers["graph"], order)[0]}
    with _xla_may_lack():
        first_s["compiled"] = _first_and_step_s(trainers["compiled"], order)[0]
    step_s = dict.fromkeys(ways, inf)
    # In turns, so that a change of the clock affects both.
    for _ in range(TIMED_EPOCHS):
        for way, trainer in trainers.items():
            step_s[way] = min(step_s[way], _first_and_step_s(trainer, order)[1])
    ratio = step_s["graph"] / step_s["compiled"]
    if ratio > CLEARLY_FASTER:
        choice = f"choose --execution compiled, {ratio:.2f} times as fast"
    else:
        choice = "keep the default, --execution graph"
    times = ", ".join(f"{1e3 * step_s[way]:.3f} ms a step by {way}" for way in ways)
    first = ", ".join(f"{first_s[way]:.1f} s by {way}" for way in ways)
    return f"{times}; the first call took {first}; {choice}"


def _first_and_step_s(trainer: TensorFlowTrainer, order: NDArray[np.int32]) -> tuple[float, float]:
    """Seconds of an epoch's first call, and seconds per step of its longest call, the last of these.

    An epoch begins with short calls and reads its loss at the end; none of that is in the longest call.
    """
    end_s: dict[int, float] = {}

    def note_end(step: int) -> None:
        trainer.synchronize()
        end_s[step] = time.perf_counter()

    note_end(0)
    trainer.train_epoch(order, note_end, epoch=1)
    calls = list(pairwise(end_s))
    start, stop = max(calls, key=lambda call: (call[1] - call[0], call[1]))
    return end_s[calls[0][1]] - end_s[0], (end_s[stop] - end_s[start]) / (stop - start)


def _trainer(spec: RunSpec, data: ImageDataset) -> TensorFlowTrainer:
    trainer = TensorFlowTrainer(spec, data)
    trainer.load_weights(initial_weights(spec.recipe, SEED))
    return trainer


def _order(epoch: int, data: ImageDataset) -> NDArray[np.int32]:
    return epoch_order(SEED, epoch, len(data.train_images))
