"""Sets the precision in torch, whose defaults differ by operation, and reads it back."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from jobs.report.schema import Numerics

if TYPE_CHECKING:
    from jobs.adapter import DeviceKind, Precision


def device_for(device: DeviceKind) -> torch.device:
    return torch.device("cuda:0" if device == "gpu" else "cpu")


def set_precision(precision: Precision) -> None:
    """Allow TF32 only if it was requested, in matrix products and in convolutions."""
    for name, backend in _backends().items():
        backend.fp32_precision = "tf32" if precision == "tf32" and ".mkldnn." not in name else "ieee"


def _backends() -> dict[str, Any]:
    """The modules whose ``fp32_precision`` sets the arithmetic of float32 products; torch's types lack most."""
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    return {
        "torch.backends.cuda.matmul": cuda.matmul,
        "torch.backends.cudnn.conv": cudnn.conv,
        "torch.backends.mkldnn.matmul": mkldnn.matmul,
        "torch.backends.mkldnn.conv": mkldnn.conv,
    }


def variable_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(precision: Precision, device: DeviceKind) -> AbstractContextManager[object]:
    """Mixed precision for ``bf16``: float32 weights, bfloat16 arithmetic; otherwise nothing."""
    if precision != "bf16":
        return nullcontext()
    # No cache: in a captured graph it would be stale, and a step casts each weight only once.
    return torch.autocast("cuda" if device == "gpu" else "cpu", dtype=torch.bfloat16, cache_enabled=False)


def effective_numerics(precision: Precision) -> Numerics:
    fp32_precision = {name: str(backend.fp32_precision) for name, backend in _backends().items()}
    variable = str(variable_dtype(precision)).removeprefix("torch.")
    return Numerics(
        compute_dtype="bfloat16" if precision == "bf16" else variable,
        variable_dtype=variable,
        tf32_matmul=fp32_precision["torch.backends.cuda.matmul"] == "tf32",
        tf32_convolution=fp32_precision["torch.backends.cudnn.conv"] == "tf32",
        deterministic=torch.are_deterministic_algorithms_enabled(),
        intra_op_threads=torch.get_num_threads(),
        inter_op_threads=torch.get_num_interop_threads(),
        thread_wait_policy="passive" if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" else "active",
        settings={f"{name}.fp32_precision": value for name, value in fp32_precision.items()}
        | {"torch.backends.cudnn.benchmark": str(torch.backends.cudnn.benchmark)},
    )
