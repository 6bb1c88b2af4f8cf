"""Faults in torch's own parts; :mod:`tests.support.faults` lists what they are for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from jobs.mnist_torch.model import scale
from jobs.mnist_torch.numerics import autocast
from tests.support.faults import PIXEL, PIXEL_SCALE

if TYPE_CHECKING:
    import pytest

    from jobs.adapter import DeviceKind, Precision
    from jobs.recipes import Scaling

TF32_DROPPED_BITS = 13


def nesterov_momentum(patch: pytest.MonkeyPatch) -> None:
    # The optimizer that it makes is still of torch's own class.
    patch.setattr(torch.optim, "SGD", partial(torch.optim.SGD, nesterov=True))


def missing_bias(patch: pytest.MonkeyPatch) -> None:
    conv_forward: Any = nn.Conv2d._conv_forward

    def forward(self: nn.Conv2d, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        return conv_forward(self, images, weight, None if bias is not None and self.in_channels == 1 else bias)

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
    round_off: Any = _RoundToTf32.apply
    conv_forward: Any = nn.Conv2d._conv_forward

    def rounded_conv(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
        return conv_forward(self, round_off(x), round_off(weight), bias)

    def rounded_linear(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(round_off(x), round_off(self.weight), self.bias)

    patch.setattr(nn.Conv2d, "_conv_forward", rounded_conv)
    patch.setattr(nn.Linear, "forward", rounded_linear)


def bf16_for_fp32(patch: pytest.MonkeyPatch) -> None:
    def autocast_to_bf16(precision: Precision, device: DeviceKind) -> object:
        return autocast("bf16" if precision == "fp32" else precision, device)

    patch.setattr("jobs.mnist_torch.trainer.autocast", autocast_to_bf16)


def pixel_scaling(patch: pytest.MonkeyPatch) -> None:
    def scaled(pixels: torch.Tensor, scaling: Scaling, dtype: torch.dtype) -> torch.Tensor:
        images = scale(pixels, scaling, dtype)
        images[:, 0, PIXEL[0], PIXEL[1]] *= PIXEL_SCALE
        return images

    patch.setattr("jobs.mnist_torch.trainer.scale", scaled)
