"""Whole runs inside this process: resumed, failed, finished, and of other settings than those of a checkpoint."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.errors import BadInput
from jobs.exit_codes import ExitCode
from jobs.recipes import LENET, RECIPES, Sgd
from jobs.report import read
from jobs.report.configuration import Design
from jobs.training import loop
from jobs.training.console import Console
from jobs.training.options import TrainRequest
from jobs.training.run import run_trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.cli.app import Program
    from jobs.report import Report


@pytest.fixture
def request_of(folder: Path, tmp_path: Path) -> Any:
    def make(**changes: Any) -> TrainRequest:
        options: dict[str, Any] = {
            "epochs": 1,
            "dataset": str(folder),
            "device": "cpu",
            "report_dir": tmp_path / "reports",
            "checkpoint_dir": tmp_path / "checkpoints",
            "telemetry": "off",
        }
        return TrainRequest(**options | changes)

    return make


def _run(request: TrainRequest, program: Program) -> int:
    return run_trials(request, program.framework, program.load_framework, Console())


def _reports(tmp_path: Path) -> list[Report]:
    return [read(path) for path in sorted((tmp_path / "reports").glob("*.json"))]


def _training_s(report: Report) -> float:
    return sum(phase.end_s - phase.start_s for phase in report.phases if phase.name in {"first_step", "train"})


@pytest.fixture
def act_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call ``action`` once, after ``step`` steps of ``epoch`` or, where no hook is called then, at the next one."""

    def install(epoch: int, step: int, action: Callable[[], None]) -> None:
        make_hook = loop._step_hook
        actions = [action]

        def make_acting_hook(context: Any, progress: Any, show: Any, **options: Any) -> Callable[[int], None]:
            on_step = make_hook(context, progress, show, **options)

            def hook(done: int) -> None:
                if actions and (progress.epoch, done) >= (epoch, step):
                    actions.pop()()
                on_step(done)

            return hook

        monkeypatch.setattr(loop, "_step_hook", make_acting_hook)

    return install


def test_train_prints_the_note_of_its_device(
    program: Program, request_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    framework: Any = program.load_framework()
    device = replace(framework.select_device("cpu"), note="The driver compiles [first].")
    monkeypatch.setattr(framework, "select_device", lambda _: device)
    assert _run(request_of(checkpoint_dir=None), program) == ExitCode.DONE
    assert "The driver compiles [first].\n" in capsys.readouterr().err


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 5), (3, 11)])
def test_train_after_an_interruption_ends_with_the_same_history_and_the_time_of_both_attempts(
    epoch: int, step: int, program: Program, request_of: Any, act_at: Callable[..., None], tmp_path: Path
) -> None:
    assert _run(request_of(epochs=3, report_dir=tmp_path / "whole", checkpoint_dir=None), program) == ExitCode.DONE
    (path,) = (tmp_path / "whole").glob("*.json")
    whole = read(path)
    act_at(epoch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert _run(request_of(epochs=3), program) == ExitCode.INTERRUPTED
    assert _run(request_of(epochs=3), program) == ExitCode.DONE
    first, second = _reports(tmp_path)
    assert (first.status, second.status, second.attempt) == ("interrupted", "completed", 2)
    assert first.run_id == second.run_id
    for one, other in zip(second.results.epochs, whole.results.epochs, strict=True):
        assert one.model_copy(update={"wall_s": other.wall_s}) == other
    assert second.results.train_wall_s == pytest.approx(sum(one.wall_s for one in second.results.epochs))
    assert second.results.train_wall_s == pytest.approx(_training_s(first) + _training_s(second))
    # Each attempt's first step is not steady training.
    assert second.results.steady_images_per_s is not None
    steady_s = sum(p.end_s - p.start_s for one in (first, second) for p in one.phases if p.name == "train")
    first_steps = sum(phase.name == "first_step" for one in (first, second) for phase in one.phases)
    steps_of_64 = 3 * 650 - 64 * first_steps
    assert second.results.steady_images_per_s == pytest.approx(steps_of_64 / steady_s, rel=1e-6)
    assert first.unexplained_nulls() == second.unexplained_nulls() == []


def test_train_after_an_error_reports_it_and_resumes(
    program: Program, request_of: Any, act_at: Callable[..., None], tmp_path: Path
) -> None:
    def fail() -> None:
        raise RuntimeError("out of\x1b luck")

    act_at(2, 3, fail)
    with pytest.raises(RuntimeError, match="luck"):
        _run(request_of(epochs=2, design="plan-1:4:1"), program)
    # Another place in the experiment does not make it another run.
    assert _run(request_of(epochs=2, design="plan-1:5:1"), program) == ExitCode.DONE
    failed, second = _reports(tmp_path)
    places = [Design(plan_id="plan-1", block=block, position=1) for block in (4, 5)]
    assert [failed.config.design, second.config.design] == places
    assert (failed.status, failed.status_reason) == ("failed", r"RuntimeError: out of\x1b luck")
    assert len(failed.results.epochs) == 1
    assert (second.status, second.attempt, len(second.results.epochs)) == ("completed", 2, 2)
    assert failed.unexplained_nulls() == second.unexplained_nulls() == []


def test_train_that_diverged_is_finished_and_reported_once(
    program: Program, request_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert _run(request_of(epochs=3, learning_rate=1e6), program) == ExitCode.DIVERGED
    assert "here is its report again" in capsys.readouterr().err
    (report,) = _reports(tmp_path)
    assert report.status == "diverged"
    assert report.results.train_loss is None
    assert report.unexplained_nulls() == []


@pytest.mark.parametrize("left", ["finished run", "checkpoint"])
def test_train_with_a_changed_momentum_in_the_recipe_is_refused(
    left: str,
    program: Program,
    request_of: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _run(request_of(), program) == ExitCode.DONE
    if left == "checkpoint":
        (path,) = (tmp_path / "checkpoints").glob("*.finished")
        path.unlink()
    monkeypatch.setitem(RECIPES, LENET.name, replace(LENET, optimizer=Sgd(momentum=0.9)))
    with pytest.raises(BadInput) as refused:
        _run(request_of(), program)
    assert "recipe.optimizer is Sgd(momentum=0.5) there and Sgd(momentum=0.9) here" in str(refused.value)
    assert "--checkpoint-dir" in str(refused.value)
    assert "here is its report again" not in capsys.readouterr().err
    # In another folder it is trained.
    again = request_of(checkpoint_dir=tmp_path / "other")
    assert _run(again, program) == ExitCode.DONE
    reports = _reports(tmp_path)
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
