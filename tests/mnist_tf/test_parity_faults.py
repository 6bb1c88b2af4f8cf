"""A layer that pads otherwise, made of this framework's own parts; the other faults are in tests/adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import pytest

from jobs.adapter import RunSpec
from jobs.comparison.analysis.parity import compare
from jobs.mnist_tf import framework
from jobs.recipes import BASIC_CNN
from tests.support.digits import small_digits
from tests.support.traces import record

if TYPE_CHECKING:
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
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


def test_compare_wrong_padding_is_found_before_the_first_step(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(BASIC_CNN.without_dropout(), "fp64")
    faithful = record(framework, spec, digits, 2)
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
    pair = compare(faithful, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_step_past_tolerance) == ("differ", 0)
    assert pair.first_quantity_past_tolerance == "first_logits"
