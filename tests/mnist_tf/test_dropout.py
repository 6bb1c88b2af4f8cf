"""Dropout from a counter: rate, scale, and which steps get which numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from jobs.mnist_tf.dropout import CounterDropout

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (64, 7, 7, 64)
RATE = 0.7


def _layer(seed: int = 1, stream: int = 3, policy: str = "float32") -> CounterDropout:
    layer = CounterDropout(RATE, seed=seed, stream=stream, dtype=keras.DTypePolicy(policy))
    layer.build(SHAPE)
    return layer


def _step(layer: CounterDropout, dtype: Any = tf.float32) -> NDArray[np.float32]:
    return np.asarray(tf.cast(layer(tf.ones(SHAPE, dtype), training=True), tf.float32))


def test_dropout_keeps_the_rate_and_the_mean() -> None:
    kept = _step(_layer())
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / np.float32(1 - RATE))}
    # 200,704 draws: 0.004 are four standard deviations.
    assert abs(np.count_nonzero(kept) / kept.size - (1 - RATE)) < 0.004


def test_dropout_each_step_layer_and_seed_has_numbers_of_its_own() -> None:
    layer = _layer()
    masks = [_step(layer), _step(layer), _step(_layer(stream=4)), _step(_layer(seed=2))]
    for index, mask in enumerate(masks):
        for other in masks[:index]:
            # Independent masks agree in 0.58 of the places.
            assert 0.56 < np.mean((mask > 0) == (other > 0)) < 0.6


def test_dropout_of_every_precision_has_the_same_mask() -> None:
    mask = _step(_layer()) > 0
    assert np.array_equal(_step(_layer(policy="float64"), tf.float64) > 0, mask)
    assert np.array_equal(_step(_layer(policy="mixed_bfloat16"), tf.bfloat16) > 0, mask)


def test_dropout_with_a_restored_counter_repeats_its_numbers() -> None:
    layer = _layer()
    _step(layer)
    (counter,) = layer.variables
    saved = counter.numpy()
    second = _step(layer)
    fresh = _layer()
    fresh.variables[0].assign(saved)
    assert np.array_equal(_step(fresh), second)


def test_dropout_in_evaluation_changes_nothing() -> None:
    layer = _layer()
    before = layer.variables[0].numpy()
    assert np.array_equal(layer(tf.ones(SHAPE), training=False), np.ones(SHAPE))
    assert np.array_equal(layer.variables[0].numpy(), before)
