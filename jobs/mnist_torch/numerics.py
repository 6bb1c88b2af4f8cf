"""Precision in torch: set on purpose, since its defaults differ by operation, and read back."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from jobs.report.schema import Numerics

if TYPE_CHECKING:
    from jobs.adapter import DeviceKind, Precision

VARIABLE_DTYPE = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def set_precision(precision: Precision) -> None:
    """Allow TF32 exactly where it was asked for, in matrix products and in convolutions."""
    mode = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = mode
    torch.backends.cudnn.conv.fp32_precision = mode
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    torch.backends.mkldnn.conv.fp32_precision = "ieee"


def autocast(precision: Precision, device: DeviceKind) -> AbstractContextManager[object]:
    """Mixed precision for ``bf16``: float32 weights, bfloat16 arithmetic; otherwise nothing."""
    if precision != "bf16":
        return nullcontext()
    # The cache of cast weights would be stale inside a captured graph, and a step casts each weight only once.
    return torch.autocast("cuda" if device == "gpu" else "cpu", dtype=torch.bfloat16, cache_enabled=False)


def effective_numerics(precision: Precision) -> Numerics:
    matmul = str(torch.backends.cuda.matmul.fp32_precision)
    convolution = str(torch.backends.cudnn.conv.fp32_precision)
    variable = str(VARIABLE_DTYPE[precision]).removeprefix("torch.")
    return Numerics(
        compute_dtype="bfloat16" if precision == "bf16" else variable,
        variable_dtype=variable,
        tf32_matmul=matmul == "tf32",
        tf32_convolution=convolution == "tf32",
        deterministic=torch.are_deterministic_algorithms_enabled(),
        intra_op_threads=torch.get_num_threads(),
        thread_wait_policy="passive" if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" else "active",
        settings={
            "torch.backends.cuda.matmul.fp32_precision": matmul,
            "torch.backends.cudnn.conv.fp32_precision": convolution,
            "torch.backends.mkldnn.matmul.fp32_precision": str(torch.backends.mkldnn.matmul.fp32_precision),
            "torch.backends.mkldnn.conv.fp32_precision": str(torch.backends.mkldnn.conv.fp32_precision),
            "torch.backends.cudnn.benchmark": str(torch.backends.cudnn.benchmark),
        },
    )
