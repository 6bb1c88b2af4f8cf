"""Standard streams that were closed when the program started, as by ``>&-``: they count as the null device."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from jobs.exit_codes import ExitCode
from jobs.mnist_tf.cli import PROGRAM
from tests.support.programs import ROOT, command_of
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MERGE: Final = [sys.executable, str(ROOT / "scripts/merge_reports.py")]
PRINTING: Final = {
    "version": command_of(PROGRAM, "--version"),
    "dataset": command_of(PROGRAM, "dataset", "--dataset", "synthetic"),
    "merge": [*MERGE, "report.json"],
    "duel": [sys.executable, str(ROOT / "scripts/duel.py"), "--help"],
    "demo": [sys.executable, str(ROOT / "scripts/demo.py"), "--help"],
}

CLOSED: Final = {"input": "<&-", "output": ">&-", "errors": "2>&-", "all": "<&- >&- 2>&-"}


def _run(closing: str, command: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("command", PRINTING.values(), ids=PRINTING)
def test_closed_stream_is_the_null_device(command: list[str], closed: str, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    done = _run(CLOSED[closed], command, tmp_path)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stderr == ""
    assert bool(done.stdout) == (closed in {"input", "errors"})


def test_closed_stdin_merge_of_it_is_bad_input(tmp_path: Path) -> None:
    done = _run("<&-", [*MERGE, "-"], tmp_path)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_later_files_do_not_take_their_numbers(tmp_path: Path) -> None:
    program = (
        "import os, jobs.io.stdio; jobs.io.stdio.open_streams()\n"
        "file = open('file', 'w'); os.write(1, b'print'); os.write(2, b'print'); print('print')\n"
        "jobs.io.stdio.flush_stdio()\n"
    )
    done = _run(CLOSED["all"], [sys.executable, "-c", program], tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""
