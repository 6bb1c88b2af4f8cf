"""Dropout whose random numbers follow from a counter on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence

PHILOX: Final = 1
"""TensorFlow's number for the algorithm Philox 4x32-10 (Salmon et al. 2011)."""
DRAWS_A_STEP: Final = 1 << 32
"""How far the counter moves in a step: further than the numbers that a layer draws in one."""
SHARD: Final = 1 << 32
"""How far apart the counters of two shards are in the word that numbers the layers: further than there are layers."""


class CounterDropout(keras.layers.Layer):
    """Dropout for the matched protocol: random numbers by seed, layer and step, equal in every precision.

    Keras's own layer computes its seeds in host memory: on a GPU three values are read back in every step.
    """

    def __init__(self, rate: float, *, seed: int, stream: int, dtype: keras.DTypePolicy) -> None:
        """``stream`` is a different number for each layer of a model."""
        super().__init__(dtype=dtype)
        self._rate = rate
        self._seed = seed
        self._stream = stream
        self.shards: Sequence[tf.Tensor] | None = None
        """The shards (int64) whose examples the next inputs are, in this order and as many of each; the step's numbers
        then depend on the shard. ``None``: the inputs are a whole batch."""

    def build(self, shape: Any) -> None:  # noqa: ARG002 - the counter is the same for any shape
        self._counter = self.add_weight(
            shape=(2,), dtype="int64", trainable=False, name="counter", initializer=lambda *_, **__: [0, self._stream]
        )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:  # noqa: FBT001 - Keras's signature
        if not training or self._rate == 0:
            return inputs
        if self.shards is None:
            random = self._draw(tf.shape(inputs), self._counter.value)
            self.next_step()
        else:
            sizes: list[Any] = inputs.shape.as_list()
            shape = [sizes[0] // len(self.shards), *sizes[1:]]
            counters = [self._counter.value + tf.stack([tf.zeros_like(n), (n + 1) * SHARD]) for n in self.shards]
            random = tf.concat([self._draw(shape, counter) for counter in counters], axis=0)
        return tf.where(random >= self._rate, inputs / (1 - self._rate), tf.zeros((), inputs.dtype))

    def next_step(self) -> None:
        """Move to the numbers of the next step. A call with ``shards`` leaves this to the caller."""
        self._counter.assign_add([DRAWS_A_STEP, 0])

    def _draw(self, shape: Any, counter: tf.Tensor) -> tf.Tensor:
        numbers: tf.Tensor = tf.raw_ops.StatelessRandomUniformV2(
            shape=shape,
            key=tf.constant([self._seed], tf.uint64),
            counter=tf.bitcast(counter, tf.uint64),
            alg=PHILOX,
            dtype=tf.float32,
        )
        return numbers
