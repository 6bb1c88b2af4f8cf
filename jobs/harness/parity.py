"""The trace that proves both frameworks compute the same thing: same weights, same batches, dropout off."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from jobs.harness.draw import batches, epoch_order
from jobs.report.schema import Parity, ParityStep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jobs.harness.data import DigitSet
    from jobs.harness.trainer import RunSpec, Trainer


def weights_sha256(weights: Mapping[str, NDArray[np.float64]]) -> str:
    """SHA-256 over the arrays in order, as little-endian float64."""
    digest = hashlib.sha256()
    for array in weights.values():
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def record_parity(trainer: Trainer, spec: RunSpec, data: DigitSet, steps: int) -> Parity:
    """Take ``steps`` optimizer steps through epoch 1's batches and record what each computed.

    The trainer must have been built without dropout. Steps beyond the epoch go on with the next one's order.
    """
    initial = weights_sha256(trainer.weights())
    rows: list[NDArray[np.int32]] = []
    epoch = 1
    while len(rows) < steps:
        indices, counts = batches(epoch_order(spec.seed, epoch, len(data.train_images)), spec.batch_size)
        rows += [row[:count] for row, count in zip(indices, counts, strict=True)]
        epoch += 1
    logits = trainer.logits(data.train_images[rows[0]])
    trace = trainer.trace(rows[:steps])
    return Parity(
        steps=[ParityStep(loss=loss, grad_norm=norm) for loss, norm in trace],
        initial_weights_sha256=initial,
        first_logits=logits.tolist(),
        weight_norms={name: float(np.linalg.norm(array)) for name, array in trainer.weights().items()},
    )
