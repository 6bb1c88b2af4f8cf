"""A layer that pads otherwise, made of this framework's own parts; the other faults are in tests/adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.adapter import RunSpec
from jobs.comparison.analysis.parity import compare
from jobs.mnist_torch import framework
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
        execution="eager",
        input="resident",
        device="cpu",
    )


def test_compare_wrong_padding_is_found_before_the_first_step(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(BASIC_CNN.without_dropout(), "fp64")
    faithful = record(framework, spec, digits, 2)
    conv_forward: Any = nn.Conv2d._conv_forward
    layers: list[nn.Conv2d] = []

    def lopsided(self: nn.Conv2d, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
        if self not in layers:
            layers.append(self)
        if layers.index(self) != 1:
            return conv_forward(self, images, weight, bias)
        # The second layer pads two pixels on one side instead of one on both.
        return functional.conv2d(functional.pad(images, (2, 0, 2, 0)), weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lopsided)
    pair = compare(faithful, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_step_past_tolerance) == ("differ", 0)
    assert pair.first_quantity_past_tolerance == "first_logits"
