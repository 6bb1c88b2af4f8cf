"""Faults that only this framework's own parts can show; the neutral ones are in tests/adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import pytest
import tensorflow as tf

from jobs.comparison.parity import compare
from jobs.harness.recipe import BASIC_CNN, LENET
from jobs.harness.trainer import RunSpec
from jobs.mnist_tf import framework
from tests.support.digits import small_digits
from tests.support.traces import record

if TYPE_CHECKING:
    from jobs.harness.data import DigitSet
    from jobs.harness.recipe import Recipe

TF32_DROPPED_BITS = 13


@pytest.fixture(scope="module")
def digits() -> DigitSet:
    return small_digits()


def _spec(recipe: Recipe, precision: Any) -> RunSpec:
    framework.select_device("cpu")
    return RunSpec(
        recipe=recipe,
        protocol="matched",
        seed=1,
        epochs=1,
        batch_size=16,
        learning_rate=recipe.learning_rate,
        precision=precision,
        execution="graph",
        input="resident",
        device="cpu",
    )


def test_one_layer_s_padding_shows_before_the_first_step(digits: DigitSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(BASIC_CNN.without_dropout(), "fp64")
    straight = record(framework, spec, digits, 2)
    made: list[int] = []

    class Lopsided(keras.layers.Conv2D):
        """The second layer pads two pixels on one side instead of one on both."""

        def __init__(self, filters: int, kernel: int, **options: Any) -> None:
            made.append(filters)
            self.lopsided = len(made) == 2
            super().__init__(filters, kernel, **options)

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            if not self.lopsided:
                return super().convolution_op(inputs, kernel)
            padded = keras.ops.pad(inputs, ((0, 0), (2, 0), (2, 0), (0, 0)))
            return keras.ops.conv(padded, kernel, strides=1, padding="valid")

    monkeypatch.setattr(keras.layers, "Conv2D", Lopsided)
    pair = compare(straight, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_past) == ("differ", (0, "first_logits"))


@tf.custom_gradient
def _round_to_tf32(x: Any) -> Any:
    """Ten bits of mantissa, as a tensor core reads float32 under TF32; the gradient passes through."""
    bits = tf.bitcast(x, tf.int32) + (1 << (TF32_DROPPED_BITS - 1))
    rounded = tf.bitwise.bitwise_and(bits, tf.constant(~((1 << TF32_DROPPED_BITS) - 1), tf.int32))
    return tf.bitcast(rounded, tf.float32), lambda gradient: gradient


def test_tf32_on_one_side_shows_before_the_first_step(digits: DigitSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(LENET, "fp32")
    straight = record(framework, spec, digits, 2)

    class Convolution(keras.layers.Conv2D):
        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return super().convolution_op(_round_to_tf32(inputs), _round_to_tf32(tf.convert_to_tensor(kernel)))

    class Dense(keras.layers.Dense):
        def call(self, inputs: Any, training: Any = None) -> Any:  # noqa: ARG002 - Keras's signature
            kernel = _round_to_tf32(tf.convert_to_tensor(self.kernel))
            return tf.matmul(_round_to_tf32(inputs), kernel) + self.bias

    monkeypatch.setattr(keras.layers, "Conv2D", Convolution)
    monkeypatch.setattr(keras.layers, "Dense", Dense)
    pair = compare(straight, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_past) == ("differ", (0, "first_logits"))
    assert pair.largest is not None
    assert 1e-5 < pair.largest < 1e-2
