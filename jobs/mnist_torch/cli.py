"""``mnist-torch``: the shared command line with torch behind it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from jobs.harness.cli import Program, run_program

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.harness.trainer import Framework


def _load() -> Framework:
    return cast("Framework", import_module("jobs.mnist_torch.framework"))


def _compile_cache(folder: Path) -> dict[str, str]:
    # Inductor's C++ and Triton's kernels, and what the driver compiles from PTX.
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "CUDA_CACHE_PATH": str(folder / "cuda"),
    }


PROGRAM = Program(
    name="mnist-torch", framework="torch", title="PyTorch", extra="torch", load=_load, compile_cache=_compile_cache
)


def main() -> None:
    run_program(PROGRAM)
