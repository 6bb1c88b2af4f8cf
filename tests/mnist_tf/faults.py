"""Faults in TensorFlow's own parts; :mod:`tests.support.faults` lists what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from jobs.mnist_tf import numerics
from jobs.mnist_tf.model import scale
from jobs.mnist_tf.optimizer import MatchedSgd
from tests.support.faults import PIXEL, PIXEL_SCALE

if TYPE_CHECKING:
    import pytest

TF32_DROPPED_BITS = 13


def nesterov_momentum(patch: pytest.MonkeyPatch) -> None:
    def update_step(self: MatchedSgd, gradient: Any, variable: Any, learning_rate: Any) -> None:
        (velocity,) = self._slots_of(variable)
        momentum = tf.constant(self._recipe.momentum, gradient.dtype)
        velocity.assign(momentum * velocity + gradient)
        rate = tf.cast(learning_rate, gradient.dtype)
        self.assign_sub(variable, rate * (gradient + momentum * velocity))

    patch.setattr(MatchedSgd, "update_step", update_step)


def missing_bias(patch: pytest.MonkeyPatch) -> None:
    class Convolution(keras.layers.Conv2D):
        def call(self, inputs: Any) -> Any:
            outputs = super().call(inputs)
            # Subtracted again, so that the bias keeps a gradient, of zero.
            return outputs - tf.cast(self.bias, outputs.dtype) if inputs.shape[-1] == 1 else outputs

    patch.setattr(keras.layers, "Conv2D", Convolution)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _round_to_tf32(x: Any) -> Any:
    """Ten bits of mantissa, as a tensor core reads float32 under TF32; the gradient passes through."""
    if x.dtype != tf.float32:
        return x, lambda gradient: gradient
    bits = tf.bitcast(x, tf.int32) + (1 << (TF32_DROPPED_BITS - 1))
    rounded = tf.bitwise.bitwise_and(bits, tf.constant(~((1 << TF32_DROPPED_BITS) - 1), tf.int32))
    return tf.bitcast(rounded, tf.float32), lambda gradient: gradient


def tf32_inputs(patch: pytest.MonkeyPatch) -> None:
    class Convolution(keras.layers.Conv2D):
        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return super().convolution_op(_round_to_tf32(inputs), _round_to_tf32(tf.convert_to_tensor(kernel)))

    class Dense(keras.layers.Dense):
        def call(self, inputs: Any, training: Any = None) -> Any:  # noqa: ARG002 - Keras's signature
            kernel = _round_to_tf32(tf.convert_to_tensor(self.kernel))
            return tf.matmul(_round_to_tf32(inputs), kernel) + self.bias

    patch.setattr(keras.layers, "Conv2D", Convolution)
    patch.setattr(keras.layers, "Dense", Dense)


def bf16_for_fp32(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(numerics.POLICY, "fp32", "mixed_bfloat16")


def pixel_scaling(patch: pytest.MonkeyPatch) -> None:
    def scaled(pixels: Any, scaling: Any, dtype: Any) -> Any:
        factors = tf.tensor_scatter_nd_update(
            tf.ones((28, 28, 1), dtype), [[*PIXEL, 0]], [tf.constant(PIXEL_SCALE, dtype)]
        )
        return scale(pixels, scaling, dtype) * factors

    patch.setattr("jobs.mnist_tf.trainer.scale", scaled)
