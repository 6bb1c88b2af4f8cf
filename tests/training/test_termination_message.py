"""The termination message: what is left of a container in ``kubectl describe pod``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import __version__
from jobs.cli.app import run_program
from jobs.exit_codes import ExitCode
from jobs.mnist_torch.cli import PROGRAM
from jobs.training.signals import SIGNALS
from jobs.training.termination_message import LIMIT_BYTES, PATH_VARIABLE, Summary, note_error, termination_message
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read(path: Path) -> dict[str, Any]:
    (line,) = path.read_text("utf-8").splitlines()
    message: dict[str, Any] = json.loads(line)
    return message


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        run_program(PROGRAM, arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A program that has ended gives its exit code on any signal, which is not for the tests' own process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the message goes; there already and empty, as the kubelet makes it."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return path


def test_message_of_a_failure_has_its_error_and_code(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--epochs", "-1"]) == ExitCode.BAD_INPUT
    message = read(path)
    assert message["program"] == "mnist-torch"
    assert message["version"] == __version__
    assert message["exit_code"] == ExitCode.BAD_INPUT
    assert message["meaning"] == ExitCode.BAD_INPUT.meaning
    assert f"error: {message['error']}" in capsys.readouterr().err
    assert message["runs"] == []


def test_message_of_doctor_has_what_it_found_wrong(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    code = run(["doctor", "--dataset", str(tmp_path / "nowhere"), "--report-dir", str(file / "reports")])
    message = read(path)
    assert message["exit_code"] == code != ExitCode.DONE
    wrong = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert len(wrong) >= 2
    assert message["error"] == "; ".join(" ".join(line.split()) for line in wrong)


def test_message_of_a_failure_has_no_control_characters(path: Path) -> None:
    assert run(["dataset", "--dataset", "caf\udce9\x1b[31m\x9b\u202e"]) == ExitCode.BAD_INPUT
    error = read(path)["error"]
    assert error.startswith(r"--dataset 'caf\udce9\x1b[31m\x9b\u202e': no such data set")
    assert error.isprintable()


def test_summary_of_a_run_with_control_characters_is_printable_and_the_same() -> None:
    summary, odd = Summary("mnist-torch"), "570\x9b31m\u202e\x7f\U000e0001"
    report = make_report()
    environment = report.environment.model_copy(update={"driver_version": odd})
    summary.add_report(report.model_copy(update={"environment": environment}))
    assert summary.line().isprintable()
    assert json.loads(summary.line())["driver_version"] == odd


def test_message_to_a_pipe_that_nobody_reads_changes_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "pipe"))
    assert run(["--version"]) == ExitCode.DONE
    assert "pipe' cannot be written (No such device or address)" in capsys.readouterr().err


def test_message_of_success_has_code_0_and_no_error(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().err == ""
    assert (read(path)["exit_code"], read(path)["error"]) == (ExitCode.DONE, None)


def test_summary_of_a_run_has_its_results() -> None:
    report = make_report()
    summary = Summary("mnist-torch")
    summary.add_report(report)
    summary.exit_code = ExitCode.DONE
    message = json.loads(summary.line())
    (run,) = message["runs"]
    assert run["run_id"] == report.run_id
    assert run["test_accuracy_ratio"] == report.results.test_accuracy_ratio
    assert run["steady_images_per_s"] == report.results.steady_images_per_s
    assert message["driver_version"] == report.environment.driver_version
    assert [device["uuid"] for device in message["devices"]] == [device.uuid for device in report.devices]
    assert message["runs_by_status"] == {report.status: 1}
    assert message["runs_left_out"] == 0


def test_summary_of_many_runs_keeps_the_newest_and_counts_all() -> None:
    summary = Summary("mnist-torch")
    for number in range(200):
        summary.add_report(make_report(run_id=f"run-{number}"))
    message = json.loads(summary.line())
    assert message["runs"][-1]["run_id"] == "run-199"
    assert message["runs_left_out"] + len(message["runs"]) == 200 == sum(message["runs_by_status"].values())
    assert len(message["runs"]) > 5


@given(errors=st.lists(st.text(max_size=3000), max_size=4), runs=st.integers(0, 30))
def test_summary_of_anything_fits_in_one_line(errors: list[str], runs: int) -> None:
    summary = Summary("mnist-tf")
    for error in errors:
        summary.add_error(error)
    for _ in range(runs):
        summary.add_report(make_report())
    line = summary.line()
    assert len(line.encode()) <= LIMIT_BYTES
    assert line.isprintable()
    assert json.loads(line)["runs_left_out"] <= runs


def test_message_without_the_variable_is_not_written(tmp_path: Path) -> None:
    with termination_message("mnist-tf", {}):
        note_error("lost")
    assert list(tmp_path.iterdir()) == []


def test_note_error_outside_a_program_does_nothing(path: Path) -> None:
    note_error("nobody listens")
    assert path.read_text() == ""


def test_message_that_cannot_be_written_changes_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "missing" / "log"))
    assert run(["--version"]) == ExitCode.DONE
    assert "termination message" in capsys.readouterr().err


def test_message_after_sigterm_has_code_143(path: Path) -> None:
    program = (
        "import os, signal\n"
        "from jobs.cli import app\n"
        "from jobs.mnist_torch.cli import PROGRAM\n"
        "app.exit_code_of = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "app.run_program(PROGRAM, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, b"")
    assert read(path)["exit_code"] == ExitCode.INTERRUPTED
