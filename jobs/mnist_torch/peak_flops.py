"""What the device can do at best in torch: the speed of a large matrix product, and of a recipe's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from jobs.mnist_torch.cpu_layers import dense_product
from jobs.mnist_torch.numerics import VARIABLE_DTYPE, autocast, set_precision
from jobs.recipes import Convolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec
    from jobs.recipes import MatmulLayer

SIDE = {"cpu": 2048, "gpu": 8192}
MIN_S = 0.5


def matmul_flop_per_s(spec: RunSpec) -> float:
    """Floating-point operations a second of a square matrix product in the spec's precision, over half a second."""
    set_precision(spec.precision)
    device = torch.device("cuda:0" if spec.device == "gpu" else "cpu")
    side = SIDE[spec.device]
    left, right = torch.rand(2, side, side, device=device, dtype=VARIABLE_DTYPE[spec.precision])

    def wait() -> None:
        if spec.device == "gpu":
            torch.cuda.synchronize(device)

    with torch.no_grad(), autocast(spec.precision, spec.device):
        left @ right
        wait()
        products, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < MIN_S:
            for _ in range(3):
                left @ right
            wait()
            products += 3
        return 2 * side**3 * products / (time.perf_counter() - begun_s)


def product_runs(product: MatmulLayer, batch: int) -> dict[str, Callable[[int], object]]:
    """``forward``, ``input gradient`` and ``weight gradient`` of a layer on random float32 numbers, on the CPU.

    Each is called with how often to compute it, and returns when that is done.
    """
    layer = product.layer
    if isinstance(layer, Convolution):
        height, width, channels = product.inputs
        last: dict[str, Any] = {"memory_format": torch.channels_last}
        x = torch.rand(batch, channels, height, width).contiguous(**last)
        weights = torch.rand(layer.filters, channels, layer.kernel, layer.kernel).contiguous(**last)
        padding = layer.kernel // 2 if layer.padding == "same" else 0
        gradient = torch.rand_like(torch.conv2d(x, weights, padding=padding))

        def backward(*, of_input: bool) -> Any:
            where = ([1, 1], [padding, padding], [1, 1], False, [0, 0], 1)
            return torch.ops.aten.convolution_backward(
                gradient, x, weights, None, *where, [of_input, not of_input, False]
            )

        return {
            "forward": _repeated(lambda: torch.conv2d(x, weights, padding=padding)),
            "input gradient": _repeated(lambda: backward(of_input=True)),
            "weight gradient": _repeated(lambda: backward(of_input=False)),
        }
    x, gradient = torch.rand(batch, *product.inputs), torch.rand(batch, layer.units)
    weights = torch.rand(layer.units, *product.inputs)
    return {
        "forward": _repeated(lambda: dense_product(x, weights, None)),
        "input gradient": _repeated(lambda: dense_product(gradient, weights.t(), None)),
        "weight gradient": _repeated(lambda: dense_product(gradient.t(), x.t(), None)),
    }


def _repeated(compute: Callable[[], object]) -> Callable[[int], object]:
    def repeat(times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                compute()

    return repeat
