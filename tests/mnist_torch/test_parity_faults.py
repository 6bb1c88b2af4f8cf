"""Faults that only this framework's own parts can show; the neutral ones are in tests/adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.comparison.parity import compare
from jobs.harness.recipe import BASIC_CNN, LENET
from jobs.harness.trainer import RunSpec
from jobs.mnist_torch import framework
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
        execution="eager",
        input="resident",
        device="cpu",
    )


def test_one_layer_s_padding_shows_before_the_first_step(digits: DigitSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(BASIC_CNN.without_dropout(), "fp64")
    straight = record(framework, spec, digits, 2)
    straight_conv = nn.Conv2d._conv_forward
    layers: list[nn.Conv2d] = []

    def lopsided(self: nn.Conv2d, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if self not in layers:
            layers.append(self)
        if layers.index(self) != 1:
            return straight_conv(self, images, weight, bias)
        # The second layer pads two pixels on one side instead of one on both.
        return functional.conv2d(functional.pad(images, (2, 0, 2, 0)), weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lopsided)
    pair = compare(straight, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_past) == ("differ", (0, "first_logits"))


class _RoundToTf32(torch.autograd.Function):
    """Ten bits of mantissa, as a tensor core reads float32 under TF32; the gradient passes through."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's signature
        bits = x.contiguous().view(torch.int32) + (1 << (TF32_DROPPED_BITS - 1))
        return (bits & ~((1 << TF32_DROPPED_BITS) - 1)).view(torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return gradient


def test_tf32_on_one_side_shows_before_the_first_step(digits: DigitSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(LENET, "fp32")
    straight = record(framework, spec, digits, 2)
    round_off = _RoundToTf32.apply
    straight_conv = nn.Conv2d._conv_forward

    def rounded_conv(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return straight_conv(self, round_off(x), round_off(weight), bias)

    def rounded_linear(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(round_off(x), round_off(self.weight), self.bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", rounded_conv)
    monkeypatch.setattr(nn.Linear, "forward", rounded_linear)
    pair = compare(straight, record(framework, spec, digits, 2))
    assert (pair.outcome, pair.first_past) == ("differ", (0, "first_logits"))
    assert pair.largest is not None
    assert 1e-5 < pair.largest < 1e-2
