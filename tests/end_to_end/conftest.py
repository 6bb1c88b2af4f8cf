"""Both jobs and the merge, each in its own environment: what no single environment can test."""

from __future__ import annotations

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
