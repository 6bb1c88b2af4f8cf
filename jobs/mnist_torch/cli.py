"""``mnist-torch``: the shared command line with torch behind it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from jobs.harness.cli import Program, run_program

if TYPE_CHECKING:
    from jobs.harness.trainer import Framework


def _load() -> Framework:
    return cast("Framework", import_module("jobs.mnist_torch.framework"))


PROGRAM = Program(name="mnist-torch", framework="torch", title="PyTorch", extra="torch", load=_load)


def main() -> None:
    run_program(PROGRAM)
