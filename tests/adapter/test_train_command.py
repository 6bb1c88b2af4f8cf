"""``train`` and its siblings as a user runs them: real process, real framework, small data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from jobs.io.cpus import usable_cpus
from jobs.report import LINE_MARKER, SCHEMA_VERSION, from_line
from tests.support.programs import command_of, error_line, once, reports_in, started_in, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.cli.app import Program

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def run(program: Program, folder: Path, tmp_path: Path) -> Callable[..., Done]:
    """Run the console script's program with the small data set, unless the arguments name another."""

    def run_program(command: str, *arguments: str) -> Done:
        return subprocess.run(
            _command(program, folder, command, *arguments), cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run_program


def _command(program: Program, folder: Path, command: str, *arguments: str) -> list[str]:
    data = [] if "--dataset" in arguments else ["--dataset", str(folder)]
    return command_of(program, command, *arguments, *data)


@once
def test_train_names_not_in_utf_8_completes(
    run: Callable[..., Done], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"caf\xe9\x1b[31m")
    shutil.copytree(folder, tmp_path / odd)
    for name in ("NODE_NAME", "POD_NAME", "IMAGE_REF", "GIT_SHA", "WATCH_GPU"):
        monkeypatch.setenv(f"MNIST_JOBS_{name}", odd)
    folders = ("--report-dir", odd + "/r", "--export-dir", odd + "/w", "--checkpoint-dir", odd + "/c")
    done = run("train", "--epochs", "1", "--dataset", odd, *folders, "--metrics-textfile", odd + "/m.prom")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "\x1b" not in done.stderr
    (report,) = reports_in(tmp_path / odd / "r")
    assert report.config.dataset.name == r"idx:caf\udce9\x1b[31m"
    assert report.environment.kubernetes is not None
    assert report.environment.kubernetes.node == r"caf\udce9\x1b[31m"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(LINE_MARKER)]
    assert from_line(line, origin="log") == report.model_copy(
        update={
            "timeseries": None,
            "null_reasons": report.null_reasons | {"timeseries": "kept in the report file only"},
        }
    )
    assert r"idx:caf\udce9\x1b[31m" in run("dataset", "--dataset", odd).stdout


@once
def test_train_closed_streams_completes(program: Program, folder: Path, tmp_path: Path) -> None:
    command = _command(program, folder, "train", "--epochs", "1")
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closing, cwd=tmp_path, check=False).returncode == ExitCode.DONE
    (report,) = reports_in(tmp_path / "reports")
    assert report.status == "completed"


def test_train_report_is_complete(run: Callable[..., Done], tmp_path: Path, program: Program) -> None:
    done = run("train", "--epochs", "2", "--device", "cpu", "--seed", "7")
    assert done.returncode == ExitCode.DONE, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    assert report.status == "completed"
    assert report.unexplained_nulls() == []
    assert report.environment.framework.name == program.framework
    assert report.config.seed == 7
    assert report.config.dataset.name == "idx:bars"
    assert report.config.parameter_count == 431_080
    assert report.config.numerics.intra_op_threads == usable_cpus()
    assert (report.config.numerics.inter_op_threads or 0) >= 1
    assert report.environment.cpu.affinity_cores == len(os.sched_getaffinity(0))
    # The record of its start has given way to the report.
    assert [path.suffix for path in (tmp_path / "reports").iterdir()] == [".json"]
    assert report.results.test_examples_evaluated == 250
    assert [epoch.epoch for epoch in report.results.epochs] == [1, 2]
    assert report.results.test_loss == report.results.epochs[-1].test_loss
    assert report.results.steady_images_per_s is not None
    assert [(phase.name, phase.epoch) for phase in report.phases] == [
        ("startup", None),
        ("dataset", None),
        ("build", None),
        ("first_step", 1),
        ("train", 1),
        ("evaluate", 1),
        ("train", 2),
        ("evaluate", 2),
    ]
    training_s = sum(p.end_s - p.start_s for p in report.phases if p.name in {"first_step", "train"})
    assert report.results.train_wall_s == pytest.approx(training_s)
    assert report.devices == []
    assert all(phase.host is None or phase.end_s > phase.start_s for phase in report.phases)


def test_measure_peak_fills_the_ceiling_outside_every_phase(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--epochs", "1", "--device", "cpu", "--measure-peak")
    assert done.returncode == ExitCode.DONE, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    results = report.results
    assert report.unexplained_nulls() == []
    assert results.ceiling_flop_per_s is not None
    assert results.achieved_flop_per_s is not None
    share = results.achieved_flop_per_s / results.ceiling_flop_per_s
    assert results.ceiling_share_ratio == pytest.approx(share)
    assert 0 < share < 1
    # It takes a second, after the last phase.
    assert report.finished_at_utc - report.started_at_utc > timedelta(seconds=report.phases[-1].end_s + 0.9)
    assert [phase.name for phase in report.phases][:4] == ["startup", "dataset", "build", "first_step"]


def test_peak_on_a_cpu_by_default_is_null_with_a_reason(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--epochs", "1", "--device", "cpu")
    assert done.returncode == ExitCode.DONE, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    for field in ("ceiling_flop_per_s", "ceiling_share_ratio"):
        assert getattr(report.results, field) is None
        assert report.null_reasons[f"results.{field}"] == "not measured: use --measure-peak"


def test_train_standard_output_is_the_report_in_one_line(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--epochs", "1", "--device", "cpu")
    (line,) = done.stdout.splitlines()
    assert line.startswith(LINE_MARKER)
    report = from_line(line, origin="stdout")
    (written,) = reports_in(tmp_path / "reports")
    assert report is not None
    assert report.run_id == written.run_id
    assert report.results == written.results


@once
def test_trials_have_own_reports_and_consecutive_seeds(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--epochs", "1", "--trials", "3", "--seed", "5", "--report-dir", str(tmp_path / "trials"))
    assert done.returncode == 0, done.stderr
    reports = reports_in(tmp_path / "trials")
    assert sorted(report.config.seed for report in reports) == [5, 6, 7]
    assert len({report.run_id for report in reports}) == 3
    for report in reports:
        assert report.phases[0].start_s >= 0
        assert report.started_at_utc < report.finished_at_utc


def test_train_published_protocol_uses_streamed_input_and_framework_defaults(
    run: Callable[..., Done], tmp_path: Path
) -> None:
    done = run("train", "--protocol", "published", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    assert report.config.input == "streamed"
    assert report.config.optimizer.form.endswith("'s own")
    assert report.unexplained_nulls() == []


def test_export_weights_evaluate_to_the_reported_accuracy(run: Callable[..., Done], tmp_path: Path) -> None:
    assert run("train", "--epochs", "1", "--export-dir", "weights").returncode == 0
    (report,) = reports_in(tmp_path / "reports")
    assert report.phases[-1].name == "export"
    (weights,) = (tmp_path / "weights").iterdir()
    assert weights.name == f"{report.run_id}.safetensors"
    done = run("evaluate", str(weights))
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert float(words[2]) == pytest.approx(report.results.test_loss, abs=1e-5)
    assert float(words[5]) == pytest.approx(report.results.test_accuracy_ratio, abs=1e-4)


def test_parity_with_zero_epochs_trains_nothing(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--recipe", "basic-cnn", "--parity-steps", "3", "--epochs", "0", "--precision", "fp64")
    assert done.returncode == 0, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    assert report.parity is not None
    assert len(report.parity.steps) == 3
    assert len(report.parity.first_logits) == 64
    assert report.results.test_accuracy_ratio is None
    assert report.unexplained_nulls() == []


def test_parity_too_few_steps_are_refused_before_training(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--parity-steps", "3", "--precision", "fp32", "--epochs", "1")
    assert done.returncode == ExitCode.BAD_INPUT
    assert done.stderr == (
        "error: --parity-steps 3: fp32 is judged from at least 8 steps; give more, or --precision fp64\n"
    )
    assert done.stdout == ""
    assert not (tmp_path / "reports").exists()


def test_parity_report_names_the_traced_path(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--parity-steps", "8", "--epochs", "1", "--input", "streamed", "--execution", "eager")
    assert done.returncode == 0, done.stderr
    (report,) = reports_in(tmp_path / "reports")
    assert report.parity is not None
    assert report.parity.path is not None
    assert report.parity.path.model_dump() == {
        "execution": "eager", "input": "streamed", "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    assert report.parity.rounding is not None
    assert [state.step for state in report.parity.rounding] == list(range(1, 9))
    assert (report.config.execution, report.config.input) == ("eager", "streamed")
    assert len(report.results.epochs) == 1
    assert report.unexplained_nulls() == []


def test_train_diverged_has_its_status_and_exit_code(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("train", "--learning-rate", "1e6", "--epochs", "3")
    assert done.returncode == ExitCode.DIVERGED
    (report,) = reports_in(tmp_path / "reports")
    assert report.status == "diverged"
    assert report.results.train_loss is None
    assert report.unexplained_nulls() == []
    assert "--learning-rate" in (report.status_reason or "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=once)])
def test_train_signal_ends_with_a_report(
    number: signal.Signals, code: int, program: Program, folder: Path, tmp_path: Path
) -> None:
    command = _command(program, folder, "train", "--epochs", "100000")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(process, b"epoch 2/")
        process.send_signal(number)
        asked = time.monotonic()
        process.communicate(timeout=60)
        took_s = time.monotonic() - asked
    assert process.returncode == code
    assert took_s < 30, "Kubernetes would have killed it"
    (report,) = reports_in(tmp_path / "reports")
    assert report.status == "interrupted"
    assert len(report.results.epochs) >= 2
    assert report.unexplained_nulls() == []


def test_train_missing_gpu_is_one_error_line(run: Callable[..., Done], program: Program, tmp_path: Path) -> None:
    done = run("train", "--device", "gpu")
    assert done.returncode == ExitCode.NO_USABLE_GPU
    assert "use --device cpu" in error_line(done)
    assert reports_in(tmp_path / "reports") == []
    (record,) = started_in(tmp_path / "reports")
    assert (record.status, record.config.framework) == ("failed", program.framework)
    assert "use --device cpu" in (record.status_reason or "")


def test_train_unsupported_precision_is_one_error_line(run: Callable[..., Done]) -> None:
    done = run("train", "--device", "cpu", "--precision", "tf32")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "only NVIDIA GPUs have it" in error_line(done)


@once
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_train_damaged_data_folder_is_one_error_line(
    damage: str, run: Callable[..., Done], folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    victim = copy / "t10k-images-idx3-ubyte"
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        victim.unlink()
    done = run("train", "--dataset", str(copy))
    assert done.returncode == ExitCode.DATASET_REFUSED
    assert "t10k-images-idx3-ubyte" in error_line(done)


@once
def test_train_unwritable_report_is_still_printed(program: Program, folder: Path, tmp_path: Path) -> None:
    command = _command(program, folder, "train", "--epochs", "100000")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(process, b"epoch 1/")
        # The folder vanishes in mid-run and a file takes its place, as a volume that was unmounted would.
        shutil.rmtree(tmp_path / "reports")
        (tmp_path / "reports").touch()
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.REPORT_NOT_WRITABLE
    assert b"error: report folder" in stderr
    report = from_line(stdout.decode(), origin="stdout")
    assert report is not None
    assert report.status == "interrupted"


def test_doctor_on_a_cpu_reports_ok(run: Callable[..., Done], program: Program) -> None:
    done = run("doctor", "--device", "cpu")
    assert done.returncode == ExitCode.DONE, done.stdout
    states = {line.split()[1].rstrip(":"): line.split()[0] for line in done.stdout.splitlines()}
    assert states["framework"] == states["device"] == states["dataset"] == states["report"] == "ok"
    assert program.framework in done.stdout


@once
def test_dataset_command_describes_the_data(run: Callable[..., Done]) -> None:
    done = run("dataset")
    assert done.returncode == 0
    assert done.stdout.startswith("idx:bars  sha256 ")
    assert "train 650" in done.stdout


@once
def test_report_file_is_standard_json(run: Callable[..., Done], tmp_path: Path) -> None:
    run("train", "--epochs", "1")
    (path,) = (tmp_path / "reports").glob("*.json")
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["schema_version"] == SCHEMA_VERSION
