from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.choices import FRAMEWORKS
from tests.support import duel_program

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """By framework: a program that writes reports without training."""
    return {framework: str(duel_program.install(tmp_path, framework)) for framework in FRAMEWORKS}


@pytest.fixture
def start(programs: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``start("plan", "--blocks", "2")`` starts the script; ``actions`` says what happens by ``block:position``."""

    def run(*arguments: str, actions: dict[str, str] | None = None, **variables: str) -> subprocess.Popen[str]:
        targets = [] if "--tf" in arguments else ["--tf", programs["tensorflow"], "--torch", programs["torch"]]
        folder, *rest = arguments
        command: list[Any] = [sys.executable, ROOT / "scripts/duel.py", folder, *targets, *rest]
        environment = {**os.environ, "DUEL_TEST": json.dumps(actions or {}), **variables}
        return subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    return run


@pytest.fixture
def duel(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same until it has ended."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        with start(*arguments, **options) as process:
            stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return run
