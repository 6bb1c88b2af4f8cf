"""Both jobs and the merge, each in its own environment: what no single environment can test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SCRIPTS = {"tensorflow": ROOT / ".venv-tf/bin/mnist-tf", "torch": ROOT / ".venv-torch/bin/mnist-torch"}


@pytest.fixture(scope="session")
def job() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``job("torch", "train", …)`` runs that framework's console script in its own environment."""
    for script in SCRIPTS.values():
        if not script.exists():
            pytest.skip(f"{script} is missing: make envs")

    def run(framework: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([SCRIPTS[framework], *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def dataset() -> str:
    """MNIST where it is given, else the embedded digits: parity must hold on either."""
    return "mnist" if os.environ.get("MNIST_DATA_DIR") else "synthetic"


@pytest.fixture(scope="session")
def mnist() -> str:
    if not os.environ.get("MNIST_DATA_DIR"):
        pytest.skip("MNIST_DATA_DIR is not set: the four real files are needed")
    return "mnist"
