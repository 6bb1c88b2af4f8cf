"""The adapter is held to the protocols by mypy, with the types of the framework that is installed here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.app import Program


@pytest.mark.slow
def test_mypy_adapter_that_breaks_the_protocol_is_found(program: Program, tmp_path: Path) -> None:
    package = f"jobs/{program.name.replace('-', '_')}"
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    framework = tmp_path / package / "framework.py"
    text = framework.read_text(encoding="utf-8")
    signature = "def is_out_of_memory(error: Exception) -> bool:"
    assert signature in text
    # Right by itself, but the protocol's callers may hand over any exception.
    framework.write_text(text.replace(signature, signature.replace("Exception", "OSError")), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", *sorted(map(str, (tmp_path / package).glob("*.py")))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (error,) = [line for line in done.stdout.splitlines() if " error: " in line]
    assert error.startswith(f"{package}/cli.py:")
    assert 'expected "Framework"' in error
