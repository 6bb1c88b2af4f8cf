"""What the GPU's kernels asked for changes no number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from jobs.adapter import RunSpec
from jobs.mnist_tf.optimizer import MatchedSgd
from jobs.mnist_tf.trainer import TensorFlowTrainer, _losses
from jobs.recipes import LENET, Sgd
from jobs.training.seeding import epoch_order
from tests.support.digits import small_digits

if TYPE_CHECKING:
    import pytest


def _trainer() -> TensorFlowTrainer:
    return TensorFlowTrainer(RunSpec.for_recipe(LENET, device="cpu", execution="graph"), small_digits())


def test_resident_batches_are_the_images_bit_for_bit() -> None:
    digits, trainer = small_digits(), _trainer()
    order = epoch_order(1, 1, len(digits.train_images))[:64].astype(np.int64)
    gathered = tf.function(trainer._images.sparse_read)(tf.constant(order))
    assert gathered.dtype == tf.uint8
    assert np.array_equal(gathered, digits.train_images[order])


def test_float64_loss_agrees_with_the_sparse_operation() -> None:
    logits = np.random.default_rng(1).normal(scale=4, size=(1000, 10))
    labels = tf.constant(np.arange(1000) % 10)
    with tf.GradientTape(persistent=True) as tape:
        given = tf.constant(logits)
        tape.watch(given)
        ours = _losses(given, labels)
        sparse = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=given)
    # A few units in the last place; parity asks for 1e-12.
    np.testing.assert_allclose(ours, sparse, rtol=1e-14)
    gradient, expected = (np.asarray(tape.gradient(losses, given)) for losses in (ours, sparse))
    np.testing.assert_allclose(gradient, expected, atol=1e-15)


def test_momentum_in_one_kernel_has_the_bits_of_its_formula() -> None:
    random = np.random.default_rng(1)
    weights = [random.normal(size=(7, 50)).astype(np.float32), random.normal(size=13).astype(np.float32)]
    variables = [tf.Variable(tf.constant(weight)) for weight in weights]
    optimizer = MatchedSgd(0.001, Sgd(momentum=0.5))
    optimizer.build(variables)
    velocities = [np.zeros_like(weight) for weight in weights]
    for _ in range(5):
        gradients = [random.normal(size=weight.shape).astype(np.float32) for weight in weights]
        optimizer.apply([tf.constant(gradient) for gradient in gradients], variables)
        for velocity, gradient, weight in zip(velocities, gradients, weights, strict=True):
            velocity[:] = np.float32(0.5) * velocity + gradient
            weight[:] = weight - np.float32(0.001) * velocity
    assert all(np.array_equal(variable, weight) for variable, weight in zip(variables, weights, strict=True))


def test_evaluation_copies_the_set_once_and_reads_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, trainer = small_digits(), _trainer()
    first = trainer.evaluate(digits.test_images, digits.test_labels)
    copies: list[Any] = []
    constant = tf.constant

    def counted(value: Any, *arguments: Any, **options: Any) -> Any:
        copies.append(np.size(value))
        return constant(value, *arguments, **options)

    monkeypatch.setattr(tf, "constant", counted)
    assert trainer.evaluate(digits.test_images, digits.test_labels) == first
    assert max(copies) == 1  # where a batch starts and ends
    sums: Any = trainer._pixel_sums(*trainer._on_device(digits.test_images, digits.test_labels), 0, 10)
    assert all(isinstance(value, tf.Tensor) for value in sums)


def test_evaluation_of_another_set_is_of_that_set() -> None:
    digits, trainer = small_digits(), _trainer()
    whole = trainer.evaluate(digits.test_images, digits.test_labels)
    part = trainer.evaluate(digits.test_images[:32], digits.test_labels[:32])
    relabelled = trainer.evaluate(digits.test_images[:32], (digits.test_labels[:32] + 1) % 10)
    assert part.examples == 32 < whole.examples
    assert relabelled.loss != part.loss
