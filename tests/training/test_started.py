"""Runs that die or are refused before their report, in processes of their own; no framework is needed for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import jsonschema
import pytest

from jobs.exit_codes import ExitCode
from jobs.recipes import LENET
from jobs.report.started import STARTED_MARKER, StartedRun
from jobs.training.console import Console
from jobs.training.started import StartedRecord
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.training.options import TrainRequest

PEER_INTERRUPTED = "error = PeerLost('peer lost: rank 1')\n    error.exit_code = 143\n    raise error"


def train(folder: Path, load: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``mnist-torch train``, whose framework is loaded by the statement ``load``."""
    program = (
        "import os, signal\n"
        "from dataclasses import replace\n"
        "from jobs.errors import DatasetRefused, FrameworkMissing, NoUsableGpu, PeerLost\n"
        "from jobs.mnist_torch.cli import PROGRAM, run_program\n"
        f"def load():\n    {load}\n"
        f"run_program(replace(PROGRAM, load=load), {['train', '--telemetry', 'off', *options]!r})\n"
    )
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def record_in(folder: Path) -> StartedRun:
    (path,) = (folder / "reports").iterdir()
    record = StartedRun.from_data(json.loads(path.read_text("utf-8")))
    assert path.name == record.file_name
    return record


def lines_of(done: subprocess.CompletedProcess[str]) -> list[StartedRun]:
    texts = [line.removeprefix(STARTED_MARKER) for line in done.stderr.splitlines() if line.startswith(STARTED_MARKER)]
    return [StartedRun.from_data(json.loads(text)) for text in texts]


def test_run_killed_while_it_starts_leaves_a_started_record(tmp_path: Path) -> None:
    pod = {"MNIST_JOBS_POD_NAME": "mnist-torch-x", "MNIST_JOBS_NODE_NAME": "node\udce9", "JOB_COMPLETION_INDEX": "3"}
    done = train(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", "--seed", "7", "--epochs", "2", **pod)
    assert done.returncode == -signal.SIGKILL
    record = record_in(tmp_path)
    assert (record.status, record.status_reason, record.attempt) == ("started", None, 1)
    assert record.config.model_dump() == {
        "recipe": "lenet", "protocol": "matched", "framework": "torch", "seed": 7, "epochs": 2, "design": None,
        "ranks": 1, "reduction": None, "scaling": None,
    }  # fmt: skip
    assert record.kubernetes is not None
    assert (record.kubernetes.node, record.kubernetes.index) == (r"node\udce9", 3)
    assert record.run_id.startswith(record.started_at_utc.strftime("%Y%m%dT%H%M%SZ-torch-lenet-matched-s7-"))
    assert done.stdout == ""
    assert lines_of(done) == [record]
    document = json.loads((tmp_path / "reports" / record.file_name).read_text("utf-8"))
    jsonschema.Draft202012Validator(StartedRun.model_json_schema(mode="serialization")).validate(document)


@pytest.mark.parametrize(
    ("load", "code", "status", "reason"),
    [
        ("raise NoUsableGpu('no GPU\\x1b')", ExitCode.NO_USABLE_GPU, "failed", r"no GPU\x1b"),
        ("raise DatasetRefused('damaged')", ExitCode.DATASET_REFUSED, "failed", "damaged"),
        (PEER_INTERRUPTED, ExitCode.INTERRUPTED, "interrupted", "peer lost: rank 1"),
        ("raise RuntimeError('luck')", ExitCode.INTERNAL_ERROR, "failed", "RuntimeError: luck"),
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            ExitCode.INTERRUPTED,
            "interrupted",
            "interrupted by SIGTERM before training began",
        ),
    ],
)
def test_run_that_fails_while_it_starts_leaves_a_record_with_the_reason(
    load: str, code: ExitCode, status: str, reason: str, tmp_path: Path
) -> None:
    done = train(tmp_path, load)
    assert done.returncode == code, done.stderr
    record = record_in(tmp_path)
    assert (record.status, record.status_reason) == (status, reason)
    first, last = lines_of(done)
    assert (first.status, last) == ("started", record)


@pytest.mark.parametrize(
    ("load", "code"),
    [
        ("raise FrameworkMissing('not installed')", ExitCode.FRAMEWORK_MISSING),
        ("from jobs.errors import BadInput; raise BadInput('no such thing')", ExitCode.BAD_INPUT),
    ],
)
def test_run_that_cannot_be_what_was_asked_for_leaves_no_file(load: str, code: ExitCode, tmp_path: Path) -> None:
    done = train(tmp_path, load)
    assert done.returncode == code
    assert list((tmp_path / "reports").iterdir()) == []
    # A log cannot be taken back, so its last line says that there was no run.
    assert [record.status for record in lines_of(done)] == ["started", "refused"]


def test_options_that_are_refused_at_once_leave_nothing(tmp_path: Path) -> None:
    done = train(tmp_path, "raise AssertionError", "--epochs", "0")
    assert done.returncode == ExitCode.BAD_INPUT
    assert not (tmp_path / "reports").exists()
    assert lines_of(done) == []


def _record(folder: Path, checkpoint_dir: Path | None = None) -> StartedRecord:
    request: Any = type("Request", (), {"ranks": 1, "reduction": None, "scaling": None})()
    vars(request).update(recipe=LENET.name, design=None, protocol="matched", epochs=None, trials=1, report_dir=folder)
    request.checkpoint_dir = checkpoint_dir
    started_at = datetime(2026, 1, 2, tzinfo=UTC)
    return StartedRecord(cast("TrainRequest", request), "torch", seed=1, started_at=started_at, console=Console())


def test_record_of_a_run_that_will_be_resumed_has_its_id_and_next_attempt(tmp_path: Path) -> None:
    for name in ("run-1-e000002-s000003.safetensors", "run-1.attempt-1", "run-1.attempt-2"):
        (tmp_path / name).touch()
    record = _record(tmp_path / "reports", tmp_path)
    assert record.path == tmp_path / "reports/run-1-a3.started"
    assert record.run_id.startswith("20260102T000000Z-torch-lenet-matched-s1-")


def test_record_that_cannot_be_written_costs_a_line_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = _record(tmp_path / "absent")
    record.write()
    record.end("failed", "a reason")
    record.remove()
    error = capsys.readouterr().err
    assert error.count("cannot be recorded in") == 2
    assert error.count(STARTED_MARKER) == 2


def test_record_is_not_written_again_after_it_was_removed(tmp_path: Path) -> None:
    record = _record(tmp_path)
    record.write()
    assert record.path.exists()
    record.remove()
    record.end("failed", "the report says it")
    assert list(tmp_path.iterdir()) == []
