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
    # OpenMP reads both once, when torch is imported. By itself it counts the CPUs of the machine and not a quota's.
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    # Its threads wait for each other in a busy loop, which is quickest alone and takes the CPU from whoever they wait
    # for where others run too.
    if "OMP_WAIT_POLICY" not in os.environ and cpus_are_shared():
        os.environ["OMP_WAIT_POLICY"] = "passive"
    with _some_folder():
        # The return type has mypy hold the module to the protocol.
        from jobs.mnist_torch import framework  # noqa: PLC0415 - torch is imported once the environment is set
    return framework


@contextmanager
def _some_folder() -> Iterator[None]:
    """Be in a folder that is there: where the current one was deleted, MKL would end the process while it is loaded."""
    try:
        Path.cwd()
    except FileNotFoundError:
        deleted = os.open(".", os.O_RDONLY)
        os.chdir("/")
        try:
            # torch.optim would import it later, and it asks for the current folder.
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
