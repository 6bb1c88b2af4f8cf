"""Faults in torch's own parts; :mod:`tests.support.faults` lists what they are for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from jobs.mnist_torch import trainer
from tests.support.faults import PIXEL, PIXEL_SCALE

if TYPE_CHECKING:
    import pytest

TF32_DROPPED_BITS = 13


def nesterov_momentum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.optim, "SGD", partial(torch.optim.SGD, nesterov=True))
    # Where the slots of an optimizer are looked up by its class, it is still the same class.


def missing_bias(patch: pytest.MonkeyPatch) -> None:
    straight = nn.Conv2d._conv_forward

    def forward(self: nn.Conv2d, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return straight(self, images, weight, None if bias is not None and self.in_channels == 1 else bias)

    patch.setattr(nn.Conv2d, "_conv_forward", forward)
    # A weight that has no part in the loss gets no gradient; the optimizer is to see a zero, as TensorFlow's does.
    zero_grad = torch.optim.Optimizer.zero_grad

    def zeros(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:  # noqa: ARG001, FBT001, FBT002
        zero_grad(self, set_to_none=False)
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad

    patch.setattr(torch.optim.Optimizer, "zero_grad", zeros)


class _RoundToTf32(torch.autograd.Function):
    """Ten bits of mantissa, as a tensor core reads float32 under TF32; the gradient passes through."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's signature
        if x.dtype != torch.float32:
            return x
        bits = x.contiguous().view(torch.int32) + (1 << (TF32_DROPPED_BITS - 1))
        return (bits & ~((1 << TF32_DROPPED_BITS) - 1)).view(torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return gradient


def tf32_inputs(patch: pytest.MonkeyPatch) -> None:
    round_off = _RoundToTf32.apply
    straight = nn.Conv2d._conv_forward

    def rounded_conv(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return straight(self, round_off(x), round_off(weight), bias)

    def rounded_linear(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(round_off(x), round_off(self.weight), self.bias)

    patch.setattr(nn.Conv2d, "_conv_forward", rounded_conv)
    patch.setattr(nn.Linear, "forward", rounded_linear)


def bf16_for_fp32(patch: pytest.MonkeyPatch) -> None:
    autocast = trainer.autocast
    patch.setattr(
        trainer, "autocast", lambda precision, device: autocast("bf16" if precision == "fp32" else precision, device)
    )


def pixel_scaling(patch: pytest.MonkeyPatch) -> None:
    scale = trainer.TorchTrainer._scale

    def scaled(self: trainer.TorchTrainer, pixels: torch.Tensor) -> torch.Tensor:
        images = scale(self, pixels)
        images[:, 0, PIXEL[0], PIXEL[1]] *= PIXEL_SCALE
        return images

    patch.setattr(trainer.TorchTrainer, "_scale", scaled)
