"""``mnist-tf``: the shared command line with TensorFlow behind it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobs.cli.app import Program, run_program
from jobs.mnist_tf.native_logs import suppress_native_stderr

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.adapter import Framework


def _load() -> Framework:
    # Otherwise Keras 3 would use the backend of the user's Keras configuration.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # GPU memory is allocated as needed, so that the report's peak is meaningful.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Errors of the C++ library only, no warnings.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with suppress_native_stderr():
        # The return type makes mypy check the module against the protocol.
        from jobs.mnist_tf import framework  # noqa: PLC0415 - TensorFlow is imported once the environment is set
    return framework


def _compile_cache(folder: Path) -> dict[str, str]:
    # XLA's executables, and what the driver compiles from PTX.
    flags = f"{os.environ.get('TF_XLA_FLAGS', '')} --tf_xla_persistent_cache_directory={folder / 'xla'}"
    return {"TF_XLA_FLAGS": flags.strip(), "CUDA_CACHE_PATH": str(folder / "cuda")}


PROGRAM = Program(
    name="mnist-tf", framework="tensorflow", title="TensorFlow", extra="tf", load=_load, compile_cache=_compile_cache
)


def main() -> None:
    run_program(PROGRAM)
