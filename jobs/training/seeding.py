"""Initial weights and batch order of ``matched`` runs, drawn from the seed: the same bits for both frameworks.

Only the raw stream of NumPy's PCG64 is used, which NumPy guarantees not to change; the methods of its Generator
may change between releases, and the two environments need not have the same one.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.recipes import weight_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jobs.recipes import Recipe, WeightShape

WEIGHTS_STREAM: Final = 0
ORDER_STREAM: Final = 1
SHUFFLE_STREAM: Final = 2
SHARD_STREAM: Final = 3


def initial_weights(recipe: Recipe, seed: int) -> dict[str, NDArray[np.float64]]:
    """Draw the recipe's initial weights, in the canonical layout of :class:`~jobs.recipes.WeightShape`.

    ``glorot_uniform``: kernels uniform in ±sqrt(6 / (fan_in + fan_out)), biases zero (Glorot and Bengio 2010, as
    Keras does by default). ``kaiming_uniform``: kernels and biases uniform in ±1 / sqrt(fan_in), which is
    He et al. 2015 with a = sqrt(5), as PyTorch does by default.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, WEIGHTS_STREAM]))
    return {shape.name: _draw_one(shape, recipe, bits) for shape in weight_shapes(recipe)}


def _draw_one(shape: WeightShape, recipe: Recipe, bits: np.random.PCG64) -> NDArray[np.float64]:
    if recipe.initializer == "glorot_uniform":
        if shape.is_bias:
            return np.zeros(shape.shape)
        limit = sqrt(6 / (shape.fan_in + shape.fan_out))
    else:
        limit = 1 / sqrt(shape.fan_in)
    unit = (bits.random_raw(shape.size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2 * unit - 1) * limit).reshape(shape.shape)


def epoch_order(seed: int, epoch: int, examples: int) -> NDArray[np.int32]:
    """A permutation of ``examples`` indices for epoch ``epoch`` (from 1), independent of earlier epochs."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, ORDER_STREAM, epoch]))
    return np.argsort(bits.random_raw(examples), kind="stable").astype(np.int32)


def shuffle_seed(seed: int, epoch: int) -> int:
    """The seed (31 bits) of an epoch's shuffle by the framework, independent of earlier epochs."""
    words = np.random.SeedSequence([seed, SHUFFLE_STREAM, epoch]).generate_state(1)
    return int(words[0]) & 0x7FFFFFFF


def shard_seeds(seed: int, epoch: int, steps: int, shards: int) -> NDArray[np.uint64]:
    """Seeds of the random numbers of each step's shards, of shape (steps, shards), for an epoch of ``steps`` steps.

    Step and shard alone decide, so that neither the rank that computes a shard nor earlier steps matter.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, SHARD_STREAM, epoch]))
    return bits.random_raw(steps * shards).reshape(steps, shards)


def batches(order: NDArray[np.int32], batch_size: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Split an epoch's order into steps of one static shape, as graphs and compilers need it.

    Returns:
        ``indices`` of shape (steps, batch_size), the last row filled up with index 0, and ``counts`` of shape
        (steps,): how many leading indices of each row are examples of the epoch.
    """
    steps = -(-order.size // batch_size)
    indices = np.zeros(steps * batch_size, dtype=np.int32)
    indices[: order.size] = order
    counts = np.full(steps, batch_size, dtype=np.int32)
    counts[-1] = order.size - (steps - 1) * batch_size
    return indices.reshape(steps, batch_size), counts
