"""What the device can do at best in torch: the speed of a large matrix product."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from jobs.mnist_torch.numerics import VARIABLE_DTYPE, autocast, set_precision

if TYPE_CHECKING:
    from jobs.harness.trainer import RunSpec

SIDE = {"cpu": 2048, "gpu": 8192}
LEAST_S = 0.5


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
        while time.perf_counter() - begun_s < LEAST_S:
            for _ in range(3):
                left @ right
            wait()
            products += 3
        return 2 * side**3 * products / (time.perf_counter() - begun_s)
