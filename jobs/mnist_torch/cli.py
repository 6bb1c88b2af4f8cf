"""``mnist-torch``: the shared command line with torch behind it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli.app import Program, run_program
from jobs.io.cpus import cpus_are_shared, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.adapter import Framework


def _load() -> Framework:
    # OpenMP reads both variables once, when torch is imported. Its default ignores a CPU quota.
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    # Its threads wait in a busy loop. That is fastest on free CPUs; on shared CPUs it takes time from working threads.
    if "OMP_WAIT_POLICY" not in os.environ and cpus_are_shared():
        os.environ["OMP_WAIT_POLICY"] = "passive"
    with _existing_folder():
        # The return type makes mypy check the module against the protocol.
        from jobs.mnist_torch import framework  # noqa: PLC0415 - torch is imported once the environment is set
    return framework


@contextmanager
def _existing_folder() -> Iterator[None]:
    """Leave a deleted current folder during the import, since MKL would end the process there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        deleted = os.open(".", os.O_RDONLY)
        os.chdir("/")
        try:
            # torch.optim would import it later; its import needs the current folder.
            import_module("torch._dynamo")
            yield
        finally:
            os.fchdir(deleted)
            os.close(deleted)
    else:
        yield


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
