"""``mnist-tf``: the shared command line with TensorFlow behind it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, cast

from jobs.harness.cli import Program, run_program
from jobs.mnist_tf.quiet import quiet_start

if TYPE_CHECKING:
    from jobs.harness.trainer import Framework


def _load() -> Framework:
    # Keras 3 would take whatever backend the user configured for something else.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Memory is taken as it is needed: otherwise the report could not say how much that was.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Warnings of the C++ side are off, errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_start():
        return cast("Framework", import_module("jobs.mnist_tf.framework"))


PROGRAM = Program(name="mnist-tf", framework="tensorflow", title="TensorFlow", extra="tf", load=_load)


def main() -> None:
    run_program(PROGRAM)
