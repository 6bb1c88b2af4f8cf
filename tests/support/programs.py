"""Runs the console scripts' programs in processes of their own."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.report import read
from jobs.report.started import StartedRun

if TYPE_CHECKING:
    import subprocess

    from jobs.cli.app import Program
    from jobs.report import Report

KILLED = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).resolve().parents[2]

TORTURE = "MNIST_JOBS_TORTURE" in os.environ
"""``make torture`` and ``make test-long``: what is tried many times is tried as often as the documentation says."""


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare, for namespaces and mounts"
)

once = pytest.mark.skipif(
    find_spec("torch") is not None and not TORTURE,
    reason="no framework takes part in it: by default it runs with TensorFlow only, which starts faster",
)
"""For a test that starts a program for what both share; every start of a framework takes seconds."""


def rounds(few: int, many: int) -> int:
    return many if TORTURE else few


def module_of(program: Program) -> str:
    return f"jobs.{program.name.replace('-', '_')}.cli"


def command_of(program: Program, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"from {module_of(program)} import main; main()", *arguments]


def killed_command_of(program: Program, epoch: int, step: int, *arguments: str) -> list[str]:
    """The same, killed after ``step`` steps of ``epoch``."""
    return [sys.executable, str(KILLED), module_of(program), str(epoch), str(step), *arguments]


def wait_for(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read standard error until ``text`` has come by, and return what was read."""
    assert process.stderr is not None
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while text not in seen:
            assert selector.select(timeout=120), f"nothing more after {seen[-500:]!r}"
            chunk = os.read(process.stderr.fileno(), 4096)
            assert chunk, f"ended early: {seen[-500:]!r}"
            seen += chunk
    return seen


def reports_in(folder: Path) -> list[Report]:
    return [read(path) for path in sorted(folder.glob("*.json"))]


def started_in(folder: Path) -> list[StartedRun]:
    """The records of runs that have started and have no report."""
    return [StartedRun.from_data(json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.started"))]


def only_report(folder: Path) -> Report:
    (report,) = reports_in(folder)
    return report


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error that names what failed."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line
