"""Layers with the same results as torch's own, faster on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

PROBABILITY_BITS: Final = 16
ONEDNN_LINEAR: Final[Callable[..., torch.Tensor] | None] = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class FastCpuDropout(nn.Module):
    """Dropout with four elements' 16-bit random numbers in one 64-bit word.

    torch's own draws a number per element, which took a tenth of a step of ``basic-cnn`` on a CPU. The rate is exact
    to 2^-17; kept elements are divided by the actual keep probability, so that the mean is exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        dropped = round(rate * 2**PROBABILITY_BITS)
        self._lowest_kept = dropped - 2 ** (PROBABILITY_BITS - 1)
        self._scale = 1 / (1 - dropped / 2**PROBABILITY_BITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        mask = (self._numbers(x) >= self._lowest_kept).to(x.dtype).mul_(self._scale)
        # In the memory order of x, channels last or not.
        return x * torch.as_strided(mask, x.size(), x.stride())

    def _numbers(self, x: torch.Tensor) -> torch.Tensor:
        """A random number for each element of ``x``, int16."""
        return random_numbers(x.numel(), x.device, None)


def random_numbers(count: int, device: torch.device, generator: torch.Generator | None) -> torch.Tensor:
    """``count`` uniform random numbers of type int16, of torch's own generator or ``generator``."""
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


class OneDnnLinear(nn.Linear):
    """A dense layer that uses oneDNN, as torch's convolutions do; torch's own dense layer uses MKL.

    On non-Intel processors MKL uses AVX2, and oneDNN's AVX-512 is twice as fast. For types other than float32, and in
    builds of torch without the operator, this is torch's own layer.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or ONEDNN_LINEAR is None:
            return functional.linear(x, self.weight, self.bias)
        logits: torch.Tensor = _OneDnnProduct.apply(x, self.weight, self.bias)
        return logits


class _OneDnnProduct(torch.autograd.Function):
    """``x weightᵀ + bias`` and its gradients, each one product with a transposed right factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return dense_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        of_x = dense_product(gradient, weight.t(), None) if ctx.needs_input_grad[0] else None
        return of_x, dense_product(gradient.t(), x.t(), None), gradient.sum(0)


def dense_product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``left rightᵀ + bias`` in float32, by oneDNN where torch has its operator."""
    if ONEDNN_LINEAR is None:
        return functional.linear(left, right, bias)
    product: torch.Tensor = ONEDNN_LINEAR(left, right, bias, "none", [], "")
    return product
