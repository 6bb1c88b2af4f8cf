"""Starting where a framework cannot, or nearly cannot: too little memory, a working folder that is gone."""

from __future__ import annotations

import resource
import subprocess
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from jobs.report import read
from tests.support.programs import command_of

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.app import Program


@pytest.mark.parametrize("mebibytes", [400, 1000])
def test_start_too_little_memory_for_the_framework_is_out_of_memory(
    program: Program, tmp_path: Path, mebibytes: int
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))

    command = command_of(program, "train", "--dataset", "synthetic", "--telemetry", "off")
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.OUT_OF_MEMORY, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: out of memory (")
    assert "ulimit -v" in line


def test_start_deleted_working_folder_completes(program: Program, folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    options = ("--epochs", "1", "--dataset", str(folder), "--report-dir", str(tmp_path / "reports"))
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command_of(program, "train", *options)]
    done = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.DONE, done.stderr
    (report,) = [read(path) for path in (tmp_path / "reports").glob("*.json")]
    assert report.status == "completed"
