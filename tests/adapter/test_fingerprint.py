"""A run that would compute something else is never taken for the one in the checkpoint folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.errors import BadInput
from jobs.exit_codes import ExitCode
from jobs.recipes import LENET, Sgd
from jobs.report import read
from jobs.telemetry.types import Options
from jobs.training.console import Console
from jobs.training.request import TrainRequest
from jobs.training.run import run_trials

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.app import Program


@pytest.fixture
def request_of(folder: Path, tmp_path: Path) -> Any:
    def make(**changes: Any) -> TrainRequest:
        options: dict[str, Any] = {
            "recipe": LENET,
            "protocol": "matched",
            "epochs": 1,
            "batch_size": None,
            "learning_rate": None,
            "seed": None,
            "dataset": str(folder),
            "device": "cpu",
            "precision": "fp32",
            "execution": None,
            "input": None,
            "trials": 1,
            "parity_steps": None,
            "report_dir": tmp_path / "reports",
            "export_dir": None,
            "checkpoint_dir": tmp_path / "checkpoints",
            "checkpoint_steps": None,
            "telemetry": Options(mode="off"),
            "metrics_textfile": None,
        }
        return TrainRequest(**options | changes)

    return make


def _run(request: TrainRequest, program: Program) -> int:
    return run_trials(request, program.load_framework, Console())


@pytest.mark.parametrize("left", ["finished run", "checkpoint"])
def test_train_with_a_changed_momentum_in_the_recipe_is_refused(
    left: str, program: Program, request_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(request_of(), program) == ExitCode.DONE
    if left == "checkpoint":
        (path,) = (tmp_path / "checkpoints").glob("*.finished")
        path.unlink()
    changed = replace(LENET, optimizer=Sgd(momentum=0.9))
    with pytest.raises(BadInput) as refused:
        _run(request_of(recipe=changed), program)
    assert "recipe.optimizer is Sgd(momentum=0.5) there and Sgd(momentum=0.9) here" in str(refused.value)
    assert "--checkpoint-dir" in str(refused.value)
    assert "here is its report again" not in capsys.readouterr().err
    # In another folder it is trained.
    again = request_of(recipe=changed, checkpoint_dir=tmp_path / "other")
    assert _run(again, program) == ExitCode.DONE
    reports = [read(path) for path in sorted((tmp_path / "reports").glob("*.json"))]
    assert sorted(report.config.optimizer.momentum or 0 for report in reports) == [0.5, 0.9]
    assert len({report.results.train_loss for report in reports}) == 2


def test_train_with_moved_data_and_other_outputs_gives_the_finished_report_again(
    program: Program, request_of: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(request_of(), program) == ExitCode.DONE
    moved = folder.rename(folder.with_name("moved"))
    try:
        elsewhere = request_of(dataset=str(moved), report_dir=tmp_path / "others", checkpoint_steps=3)
        assert _run(elsewhere, program) == ExitCode.DONE
    finally:
        moved.rename(folder)
    assert "here is its report again" in capsys.readouterr().err
    first, again = (
        read(path) for path in (*(tmp_path / "reports").glob("*.json"), *(tmp_path / "others").glob("*.json"))
    )
    assert first == again
