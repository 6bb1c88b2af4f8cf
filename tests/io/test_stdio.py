"""A full disk behind standard output, or a reader that leaves: a line and a code, never a traceback or Python's 120."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from jobs.exit_codes import ExitCode
from jobs.mnist_tf.cli import PROGRAM
from tests.support.programs import ROOT, command_of
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from collections.abc import Iterable

FULL: Final = Path("/dev/full")
MERGE: Final = [sys.executable, str(ROOT / "scripts/merge_reports.py")]
PRINTING: Final = {
    "version": command_of(PROGRAM, "--version"),
    "help": command_of(PROGRAM, "train", "--help"),
    "dataset": command_of(PROGRAM, "dataset", "--dataset", "synthetic"),
    "merge": [*MERGE, "now"],
    "merge help": [*MERGE, "--help"],
}
BUFFERED: Final = {"buffered": {}, "unbuffered": {"PYTHONUNBUFFERED": "1"}}

pytestmark = [
    pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here"),
    pytest.mark.parametrize("how", BUFFERED),
]


def _run(command: Iterable[str], how: str, folder: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | BUFFERED[how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        list(command), cwd=folder, env=variables, text=True, check=False, timeout=120, **(pipes | streams)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Reports of ``now``, five of each framework, and of ``then``, when both were twice as fast."""
    for when, speed in (("now", 10_000.0), ("then", 20_000.0)):
        for seed in range(1, 11):
            report = make_report(
                framework="torch" if seed % 2 else "tensorflow", seed=seed, images_per_s=speed + 10 * seed
            )
            write_report(report, tmp_path / when / f"{seed}.json")
    return tmp_path


@pytest.mark.parametrize("what", PRINTING)
def test_stdout_on_a_full_disk_is_one_line_and_a_code(what: str, how: str, folder: Path) -> None:
    with FULL.open("w") as full:
        done = _run(PRINTING[what], how, folder, stdout=full)
    assert done.returncode == ExitCode.REPORT_NOT_WRITABLE, done.stderr
    assert done.stderr == (
        "error: standard output cannot be written (No space left on device); free space there or send it elsewhere\n"
    )


@pytest.mark.parametrize("what", PRINTING)
def test_stdout_closed_by_its_reader_is_no_error(what: str, how: str, folder: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = _run(PRINTING[what], how, folder, stdout=write_end)
    finally:
        os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == ExitCode.DONE


@pytest.mark.parametrize(
    "command", [command_of(PROGRAM, "train", "--recipe", "none"), [*MERGE, "absent"]], ids=["train", "merge"]
)
def test_stderr_on_a_full_disk_keeps_the_exit_code(command: list[str], how: str, folder: Path) -> None:
    with FULL.open("w") as full:
        assert _run(command, how, folder, stderr=full).returncode == ExitCode.BAD_INPUT


def test_stdout_on_a_full_disk_keeps_the_code_of_a_regression(how: str, folder: Path) -> None:
    with FULL.open("w") as full:
        done = _run([*MERGE, "now", "--baseline", "then"], how, folder, stdout=full)
    assert done.returncode == ExitCode.REGRESSION, done.stderr
    assert (folder / "comparison/comparison.json").exists()
