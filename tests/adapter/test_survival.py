"""Killed and resumed: what a run has reached is not lost, and what it reports is true."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import threading
import time
import zipfile
from typing import TYPE_CHECKING

import psutil
import pytest

from jobs.exit_codes import ExitCode
from jobs.report import from_line
from jobs.weights_file import read_weights_file
from tests.support.programs import (
    ROOT,
    TORTURE,
    command_of,
    error_line,
    killed_command_of,
    needs_root,
    once,
    only_report,
    reports_in,
    rounds,
    started_in,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.cli.app import Program
    from jobs.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if TORTURE else 600)]

Run = subprocess.CompletedProcess[str]

EPOCHS = 3
STEPS = 11
"""Steps an epoch, of the small data set in batches of 64."""


def _history(report: Report) -> list[tuple[float | None, ...]]:
    return [(epoch.train_loss, epoch.test_loss, epoch.test_accuracy_ratio) for epoch in report.results.epochs]


def _options(recipe: str, name: str) -> list[str]:
    return [
        *("train", "--recipe", recipe, "--device", "cpu", "--telemetry", "off", "--epochs", str(EPOCHS)),
        *("--checkpoint-dir", f"{name}/checkpoints", "--checkpoint-steps", "2"),
        *("--report-dir", f"{name}/reports", "--export-dir", f"{name}/weights"),
    ]


# Its optimizer and its dropout have a state; lenet is killed in `make torture`.
@pytest.mark.parametrize("recipe", ["lenet", "basic-cnn"] if TORTURE else ["basic-cnn"])
def test_train_killed_at_any_step_resumes_to_the_same_bits(
    recipe: str, program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    whole = run_process(command_of(program, *_options(recipe, "whole")))
    assert whole.returncode == ExitCode.DONE, whole.stderr
    expected = only_report(tmp_path / "whole/reports")
    (weights,) = (tmp_path / "whole/weights").iterdir()
    expected_weights = read_weights_file(weights).weights
    draw = random.Random(f"{program.name} {recipe}")  # noqa: S311 - moments, not secrets
    for number in range(rounds(1, 20)):
        name, epoch, step = f"killed-{number}", draw.randint(1, EPOCHS), draw.randint(1, STEPS)
        options = _options(recipe, name)
        killed = run_process(killed_command_of(program, epoch, step, *options))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert reports_in(tmp_path / name / "reports") == []
        (record,) = started_in(tmp_path / name / "reports")
        assert (record.status, record.attempt, record.config.framework) == ("started", 1, program.framework)
        done = run_process(command_of(program, *options))
        assert done.returncode == ExitCode.DONE, done.stderr
        report = only_report(tmp_path / name / "reports")
        assert _history(report) == _history(expected), (epoch, step)
        (weights,) = (tmp_path / name / "weights").iterdir()
        for key, array in read_weights_file(weights).weights.items():
            assert array.tobytes() == expected_weights[key].tobytes(), (epoch, step, key)
        resumed = (epoch, step) >= (1, 2)
        assert report.attempt == (2 if resumed else 1)
        # A resumed run is the one that was killed. Without a checkpoint it is another, and the first one failed.
        assert (report.run_id == record.run_id) == resumed
        assert started_in(tmp_path / name / "reports") == [record]
        assert len(report.earlier_attempts) == report.attempt - 1
        assert report.unexplained_nulls() == []
        assert report.results.train_wall_s == pytest.approx(sum(one.wall_s for one in report.results.epochs), rel=1e-9)


def test_train_sigterm_leaves_a_checkpoint_to_resume_from(
    program: Program, run_process: Callable[..., Run], folder: Path, tmp_path: Path
) -> None:
    options = ["train", "--epochs", "40", "--telemetry", "off", "--checkpoint-dir", "checkpoints", "--device", "cpu"]
    command = command_of(program, *options, "--dataset", str(folder))
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(process, b"epoch 2/")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    first = only_report(tmp_path / "reports")
    assert (first.status, first.attempt) == ("interrupted", 1)
    assert first.phases[-1].name == "checkpoint"

    done = run_process(command_of(program, *options))
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "resuming from" in done.stderr
    first, second = reports_in(tmp_path / "reports")
    assert (second.run_id, second.attempt, second.status) == (first.run_id, 2, "completed")
    assert _history(second)[: len(first.results.epochs)] == _history(first)
    (earlier,) = second.earlier_attempts
    assert (earlier.attempt, earlier.started_at_utc) == (1, first.started_at_utc)
    assert second.results.train_wall_s is not None
    assert second.results.train_wall_s > sum(earlier.phases_s[name] for name in ("first_step", "train"))
    assert second.unexplained_nulls() == []

    again = run_process(command_of(program, *options))
    assert again.returncode == ExitCode.DONE
    assert "is finished" in again.stderr
    assert len(reports_in(tmp_path / "reports")) == 2
    printed = from_line(again.stdout, origin="stdout")
    assert printed is not None
    assert printed.results == second.results


@needs_root
def test_train_sigterm_as_process_1_at_any_moment_ends_cleanly(
    program: Program, folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(program.name)  # noqa: S311 - moments, not secrets
    slowest_s = 0.0
    for number in range(rounds(1, 50)):
        name = f"run-{number}"
        options = ["--checkpoint-dir", f"{name}/checkpoints", "--report-dir", f"{name}/reports", "--telemetry", "off"]
        command = command_of(program, "train", "--epochs", "100000", *options, "--dataset", str(folder))
        unshare = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
        with subprocess.Popen(
            [*unshare, *command], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            wait_for(process, b"epoch 1/")
            (job,) = psutil.Process(process.pid).children()
            # Not to wait for anything: to come at some moment of a step, an evaluation or a checkpoint.
            threading.Event().wait(draw.uniform(0, 1))
            asked_s = time.monotonic()
            job.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            slowest_s = max(slowest_s, time.monotonic() - asked_s)
        assert process.returncode == ExitCode.INTERRUPTED
        report = only_report(tmp_path / name / "reports")
        assert report.status == "interrupted"
        assert report.unexplained_nulls() == []
    record_property("slowest_s", slowest_s)
    # Kubernetes kills after 30 s; docs/reliability.md's 5 s are those of a machine that is not busy otherwise.
    assert slowest_s <= rounds(30, 5)


def test_train_two_processes_on_one_checkpoint_folder_both_report(
    program: Program, folder: Path, tmp_path: Path
) -> None:
    options = ["train", "--epochs", "2", "--checkpoint-dir", "checkpoints", "--checkpoint-steps", "1"]
    command = command_of(program, *options, "--telemetry", "off", "--dataset", str(folder))
    # A run that both go on from, so that both have its id.
    first = subprocess.run(
        [*killed_command_of(program, 1, 4, *options), "--dataset", str(folder)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert first.returncode == -signal.SIGKILL
    both = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    for process in both:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == ExitCode.DONE, stderr.decode()
    reports = reports_in(tmp_path / "reports")
    assert 1 <= len(reports) <= 2
    # No two attempts have one number, so that a comparison can tell them apart.
    assert {report.attempt for report in reports} <= {2, 3}
    assert len({report.attempt for report in reports}) == len(reports)
    assert len({report.run_id for report in reports}) == 1
    assert len({tuple(_history(report)) for report in reports}) == 1


@once
def test_train_finished_run_writes_lost_outputs_again(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    command = command_of(
        program,
        *("train", "--epochs", "1", "--telemetry", "off", "--checkpoint-dir", "checkpoints"),
        *("--export-dir", "weights", "--metrics-textfile", "m.prom"),
    )
    assert run_process(command).returncode == ExitCode.DONE
    (weights,) = (tmp_path / "weights").iterdir()
    trained = read_weights_file(weights).weights
    kept = {path: path.read_bytes() for path in (tmp_path / "m.prom", *(tmp_path / "reports").iterdir())}
    for path in (weights, *kept):
        path.unlink()
    again = run_process(command)
    assert again.returncode == ExitCode.DONE, again.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    for name, array in read_weights_file(weights).weights.items():
        assert array.tobytes() == trained[name].tobytes()
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        path.unlink()
    weights.unlink()
    lost = run_process(command)
    assert lost.returncode == ExitCode.BAD_INPUT
    assert "no checkpoint has its last weights" in error_line(lost)


@once
def test_trials_with_checkpoints_are_separate_and_run_once(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    options = ["train", "--trials", "2", "--seed", "5", "--epochs", "1", "--checkpoint-dir", "checkpoints"]
    first = run_process(command_of(program, *options, "--telemetry", "off"))
    assert first.returncode == ExitCode.DONE, first.stderr
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["seed-5", "seed-6"]
    again = run_process(command_of(program, *options, "--telemetry", "off"))
    assert again.returncode == ExitCode.DONE
    assert again.stderr.count("is finished") == 2
    assert [report.config.seed for report in reports_in(tmp_path / "reports")] == [5, 6]


@once
def test_resume_another_configuration_is_refused(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    options = ["--checkpoint-dir", "checkpoints", "--checkpoint-steps", "2", "--telemetry", "off"]
    killed = run_process(killed_command_of(program, 2, 5, "train", "--epochs", "3", *options))
    assert killed.returncode == -signal.SIGKILL
    for changes, named in (
        (["--batch-size", "32"], "batch_size is 64 there and 32 here"),
        (["--seed", "9"], "seed is 1 there and 9 here"),
    ):
        done = run_process(command_of(program, "train", "--epochs", "3", *options, *changes))
        assert done.returncode == ExitCode.BAD_INPUT
        assert named in error_line(done)
    assert reports_in(tmp_path / "reports") == []


class _Trap:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch executed",))


@once
def test_resume_checkpoint_of_unknown_origin_is_refused_and_never_executed(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    bomb = pickle.dumps(_Trap())
    named_like_ours = checkpoints / "20260101T000000Z-x-lenet-matched-s1-000000-e000002-s000003.safetensors"
    named_like_ours.write_bytes(bomb)
    (checkpoints / "model.pt").write_bytes(bomb)
    (checkpoints / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bomb)
    with zipfile.ZipFile(checkpoints / "model.keras", "w") as archive:
        archive.writestr(
            "config.json", '{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}'
        )
        archive.writestr("archive/data.pkl", bomb)
    files = sorted(checkpoints.iterdir())
    done = run_process(
        command_of(program, "train", "--epochs", "1", "--checkpoint-dir", "checkpoints", "--telemetry", "off")
    )
    assert done.returncode == ExitCode.DONE, done.stderr
    for path in files:
        assert f"{path.name}' is refused" in done.stderr
        evaluated = run_process(command_of(program, "evaluate", str(path)))
        assert evaluated.returncode == ExitCode.BAD_INPUT
        assert path.name in error_line(evaluated)
    assert only_report(tmp_path / "reports").attempt == 1
    assert not list(tmp_path.rglob("executed"))


@once
def test_resume_damaged_checkpoint_is_named_and_the_previous_is_used(
    program: Program, run_process: Callable[..., Run], tmp_path: Path
) -> None:
    options = ["train", "--epochs", "2", "--checkpoint-dir", "checkpoints", "--checkpoint-steps", "2"]
    assert run_process(killed_command_of(program, 2, 5, *options)).returncode == -signal.SIGKILL
    older, newest = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = run_process(command_of(program, *options))
    assert done.returncode == ExitCode.DONE, done.stderr
    assert f"{newest.name}' is refused: its content does not have the hash" in done.stderr
    assert f"resuming from 'checkpoints/{older.name}'" in done.stderr
