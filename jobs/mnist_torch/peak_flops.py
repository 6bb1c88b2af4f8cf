"""The device's peak speed in torch: of a large matrix product, and of a recipe's own products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jobs.adapter_common import MATRIX_SIDE, peak_flop_per_s
from jobs.mnist_torch.cpu_layers import dense_product
from jobs.mnist_torch.numerics import device_for, set_precision, variable_dtype
from jobs.recipes import Convolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec
    from jobs.recipes import MatmulLayer


def matmul_flop_per_s(spec: RunSpec) -> float:
    """See :meth:`jobs.adapter.Framework.matmul_flop_per_s`."""
    set_precision(spec.precision)
    dtype = torch.bfloat16 if spec.precision == "bf16" else variable_dtype(spec.precision)
    device, side = device_for(spec.device), MATRIX_SIDE[spec.device]
    # A separate generator, so that the measurement does not change training's random numbers.
    generator = torch.Generator(device).manual_seed(0)
    left, right = torch.rand(2, side, side, generator=generator, device=device).to(dtype)
    return peak_flop_per_s(_repeated(lambda: left @ right), spec.device)


def product_runs(product: MatmulLayer, batch: int) -> dict[str, Callable[[int], object]]:
    """``forward``, ``input gradient`` and ``weight gradient`` of a layer on random float32 numbers, on the CPU.

    Each takes the number of repetitions and returns when they are done.
    """
    layer = product.layer
    if isinstance(layer, Convolution):
        height, width, channels = product.inputs
        last: dict[str, Any] = {"memory_format": torch.channels_last}
        x = torch.rand(batch, channels, height, width).contiguous(**last)
        weights = torch.rand(layer.filters, channels, layer.kernel, layer.kernel).contiguous(**last)
        padding = layer.kernel // 2 if layer.padding == "same" else 0
        gradient = torch.rand_like(torch.conv2d(x, weights, padding=padding))

        def backward(*outputs: bool) -> object:
            options = ([1, 1], [padding, padding], [1, 1], False, [0, 0], 1)
            return torch.ops.aten.convolution_backward(gradient, x, weights, None, *options, outputs)

        return {
            "forward": _repeated(lambda: torch.conv2d(x, weights, padding=padding)),
            "input gradient": _repeated(lambda: backward(True, False, False)),
            "weight gradient": _repeated(lambda: backward(False, True, False)),
        }
    x, gradient = torch.rand(batch, *product.inputs), torch.rand(batch, layer.units)
    weights = torch.rand(layer.units, *product.inputs)
    return {
        "forward": _repeated(lambda: dense_product(x, weights, None)),
        "input gradient": _repeated(lambda: dense_product(gradient, weights.t(), None)),
        "weight gradient": _repeated(lambda: dense_product(gradient.t(), x.t(), None)),
    }


@torch.no_grad()
def _repeat(compute: Callable[[], object], times: int) -> None:
    for _ in range(times):
        compute()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def _repeated(compute: Callable[[], object]) -> Callable[[int], object]:
    return lambda times: _repeat(compute, times)
