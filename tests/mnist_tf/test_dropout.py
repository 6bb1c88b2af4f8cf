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


def test_dropout_of_shards_depends_on_the_shard_and_not_on_those_beside_it() -> None:
    def mask(*shards: int) -> NDArray[np.float32]:
        layer = _layer()
        layer.shards = [tf.constant(shard, tf.int64) for shard in shards]
        return np.asarray(layer(tf.ones((8 * len(shards), 7, 7, 64)), training=True))

    together = np.split(mask(0, 3, 7), 3)
    for shard, part in zip((0, 3, 7), together, strict=True):
        assert np.array_equal(mask(shard), part)
    masks = [*together, _step(_layer())[:8]]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert 0.55 < np.mean((one > 0) == (other > 0)) < 0.61


def test_dropout_of_shards_leaves_the_step_to_the_caller() -> None:
    layer = _layer()
    layer.shards = [tf.constant(2, tf.int64)]
    first, again = _step(layer), _step(layer)
    assert np.array_equal(first, again)
    layer.next_step()
    assert not np.array_equal(_step(layer), first)


def test_dropout_of_a_whole_batch_draws_from_its_first_counter() -> None:
    """The numbers of runs without shards stay what they were before there were shards."""
    for step in range(2):
        random = tf.raw_ops.StatelessRandomUniformV2(
            shape=SHAPE, key=tf.constant([1], tf.uint64), counter=tf.constant([step << 32, 3], tf.uint64), alg=1
        )
        layer = _layer()
        for _ in range(step):
            layer.next_step()
        assert np.array_equal(_step(layer) > 0, np.asarray(random) >= np.float32(RATE))
