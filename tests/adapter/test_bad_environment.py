"""Full disks, closed logs and too little memory: one clear line, an exit code, and no lost result."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from tests.support.programs import (
    ROOT,
    TORTURE,
    command_of,
    error_line,
    needs_root,
    once,
    only_report,
    reports_in,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.cli.app import Program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if TORTURE else 600)]

Run = subprocess.CompletedProcess[str]


@once
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_train_unwritable_log_still_completes(
    stream: str, program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    options = ["train", "--trials", "2", "--epochs", "1", "--telemetry", "off", "--metrics-textfile", "m.prom"]
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: full}
        done = run_process(command_of(program, *options), capture_output=False, **streams)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert len(reports_in(tmp_path / "reports")) == 2
    assert (tmp_path / "m.prom").exists()


@once
def test_train_closed_stderr_pipe_still_completes(program: Program, folder: Path, tmp_path: Path) -> None:
    command = command_of(program, "train", "--epochs", "2", "--telemetry", "off", "--dataset", str(folder))
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for(process, b"on cpu")
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(timeout=120) == ExitCode.DONE
    assert only_report(tmp_path / "reports").status == "completed"


def _in_a_namespace(prepare: str, command: list[str]) -> list[str]:
    """``command`` after ``prepare`` in a mount namespace of its own, as root without the right to ignore modes."""
    drop = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
    return ["unshare", "--mount", "sh", "-c", f'{prepare}; exec {drop} "$@"', "sh", *command]


FULL = "mount -t tmpfs -o size=1m tmpfs place; head -c 2000000 /dev/zero > place/filling 2>/dev/null"
PLACES = {
    "full": (FULL, "No space left on device"),
    "read-only": ("mount -t tmpfs -o ro tmpfs place", "Read-only file system"),
    "forbidden": ("chmod 0 place", "Permission denied"),
}


OPTIONS = ("--report-dir", "--checkpoint-dir", "--export-dir", "--metrics-textfile")
# Every pair in `make torture`; by default each option and each place once or twice, as each case starts a framework.
BAD_PLACES = [
    (place, option)
    for p, place in enumerate(PLACES)
    for o, option in enumerate(OPTIONS)
    if TORTURE or (o - p) % len(PLACES) == 0
]


@once
@needs_root
@pytest.mark.parametrize(("place", "option"), BAD_PLACES)
def test_train_unusable_output_path_is_one_line_and_an_exit_code(
    place: str, option: str, program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    prepare, reason = PLACES[place]
    target = "place/m.prom" if option == "--metrics-textfile" else "place"
    command = command_of(program, "train", "--epochs", "1", "--telemetry", "off", option, target)
    done = run_process(_in_a_namespace(prepare, command))
    (tmp_path / "place").chmod(0o755)
    assert done.returncode == ExitCode.REPORT_NOT_WRITABLE, done.stderr
    assert reason in error_line(done)
    assert option in error_line(done)


@once
@needs_root
def test_train_checkpoint_without_disk_space_still_completes(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    command = command_of(program, "train", "--epochs", "2", "--telemetry", "off", "--checkpoint-dir", "place")
    done = run_process(_in_a_namespace("mount -t tmpfs -o size=1m tmpfs place", command))
    assert done.returncode == ExitCode.DONE, done.stderr
    report = only_report(tmp_path / "reports")
    assert report.status == "completed"
    assert "checkpoint_not_written" in [warning.code for warning in report.warnings]


@needs_root
def test_train_without_shared_memory_and_home_completes(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    command = command_of(program, "train", "--epochs", "1", "--input", "streamed", "--execution", "eager")
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = run_process(_in_a_namespace("umount -l /dev/shm", command), env=bare)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert only_report(tmp_path / "reports").status == "completed"


def test_out_of_memory_host_names_batch_size_and_free_memory(program: Program, tmp_path: Path) -> None:
    big = ["--recipe", "basic-cnn", "--execution", "eager", "--batch-size", "60000", "--dataset", "synthetic"]
    # A limit on the address space, set when the framework is loaded, stands for a host that has no more.
    program_text = (
        "import resource, sys\n"
        f"from jobs.{program.name.replace('-', '_')}.cli import PROGRAM\n"
        "from jobs.cli.app import exit_code_of\n"
        "PROGRAM.load_framework()\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**30,) * 2)\n"
        "sys.exit(exit_code_of(PROGRAM, sys.argv[1:]))\n"
    )
    command = [*command_of(program)[:2], program_text, "train", "--epochs", "1", "--telemetry", "off", *big]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.OUT_OF_MEMORY, done.stderr
    line = error_line(done)
    assert "batch size 60000" in line
    assert "free at the time" in line
    report = only_report(tmp_path / "reports")
    assert report.status == "failed"
    assert "batch size 60000" in (report.status_reason or "")
