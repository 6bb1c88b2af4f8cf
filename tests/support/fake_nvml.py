"""Builds the stand-in for NVIDIA's library that the real binding loads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "nvml" / "fake_nvml.c"


def build(folder: Path, *options: str) -> Path:
    """Compile ``libnvidia-ml.so.1`` into ``folder``, which is returned; the test is skipped without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in for libnvidia-ml.so.1 cannot be built")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options]
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", SOURCE, "-lm"], check=True)
    return folder
