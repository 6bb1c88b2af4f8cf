"""``--repeat``: training starts again from the same state, is measured, and changes nothing that is reported of it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.checkpoint.metadata import TrainingProgress, extent_of
from jobs.errors import BadInput
from jobs.exit_codes import ExitCode
from jobs.phases import Clock, PhaseRecorder
from jobs.recipes import BASIC_CNN, LENET
from jobs.telemetry.types import LiveReading
from jobs.training.console import Console
from jobs.training.loop import LoopContext, train
from jobs.training.options import TrainRequest
from jobs.training.repeats import RepeatedTraining
from jobs.training.run import run_trials
from jobs.weights_file import read_weights_file
from tests.support.programs import TORTURE, only_report, reports_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.cli.app import Program
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup
    from jobs.recipes import Recipe
    from jobs.report import Report

IMAGES = 650


@pytest.fixture
def run(program: Program, folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Run two epochs in this process."""

    def train_with(**changes: Any) -> int:
        options: dict[str, Any] = {
            "epochs": 2,
            "dataset": str(folder),
            "device": "cpu",
            "report_dir": tmp_path / "reports",
            "export_dir": tmp_path / "weights",
            "telemetry": "off",
        }
        return run_trials(TrainRequest(**options | changes), program.framework, program.load_framework, Console())

    return train_with


def _learned(report: Report) -> list[tuple[Any, ...]]:
    return [(epoch.train_loss, epoch.test_loss, epoch.test_accuracy_ratio) for epoch in report.results.epochs]


def _weights(folder: Path, report: Report) -> dict[str, Any]:
    (path,) = folder.glob(f"{report.run_id}*")
    return dict(read_weights_file(path).weights)


def _train_s(report: Report, *, repeated: bool) -> float:
    spans = [phase for phase in report.phases if phase.name == "train" and (phase.epoch is None) is repeated]
    return sum(phase.end_s - phase.start_s for phase in spans)


def test_train_repeated_reports_the_first_training_and_the_speed_of_all(
    run: Callable[..., int], tmp_path: Path
) -> None:
    assert run(report_dir=tmp_path / "once") == ExitCode.DONE
    assert run(repeat=3) == ExitCode.DONE
    once, report = only_report(tmp_path / "once"), only_report(tmp_path / "reports")
    assert _learned(report) == _learned(once)
    for name, weight in _weights(tmp_path / "weights", once).items():
        assert np.array_equal(_weights(tmp_path / "weights", report)[name], weight), name
    assert (once.config.repeat, report.config.repeat) == (1, 3)
    assert once.results.repeats is None
    repeats = report.results.repeats
    assert repeats is not None
    assert (repeats.trainings, repeats.images) == (2, 2 * 2 * IMAGES)
    # One phase for all of them, in which the GPU is observed without gaps.
    assert [phase.name for phase in report.phases if phase.epoch is None][-2:] == ["build", "train"]
    assert sum(phase.name == "first_step" for phase in report.phases) == 1
    assert repeats.train_s + repeats.between_s == pytest.approx(_train_s(report, repeated=True))
    assert 0 < repeats.between_s < repeats.train_s
    steady_s = _train_s(report, repeated=False) + repeats.train_s
    assert report.results.steady_images_per_s == pytest.approx((2 * IMAGES - 64 + repeats.images) / steady_s)
    assert report.results.train_wall_s == pytest.approx(sum(epoch.wall_s for epoch in report.results.epochs))
    assert once.unexplained_nulls() == report.unexplained_nulls() == []


@pytest.mark.parametrize(
    ("recipe", "protocol", "input_path"),
    [
        (LENET, "matched", "resident"),
        (BASIC_CNN, "published", "streamed"),
        *(
            [(recipe, "published", "resident") for recipe in (LENET, BASIC_CNN)]
            + [(recipe, "matched", "streamed") for recipe in (LENET, BASIC_CNN)]
            if TORTURE
            else []
        ),
    ],
)
def test_repeated_training_ends_with_the_bits_of_the_first(
    recipe: Recipe, protocol: str, input_path: str, spec: Callable[..., RunSpec], framework: Framework, digits: Any
) -> None:
    """Weights, optimizer, dropout and shuffle all start anew: each of them alone would change the weights."""
    chosen = spec(recipe=recipe, protocol=protocol, input=input_path, epochs=2 if recipe is LENET else 1, repeat=2)
    trainer = framework.create_trainer(chosen, digits)
    repeated = RepeatedTraining(trainer, chosen)
    loop = _loop(trainer, chosen, digits)
    assert train(loop, TrainingProgress()).status == "completed"
    first = trainer.state()
    assert repeated.run(loop).status == "completed"
    for name, array in trainer.state().items():
        assert np.array_equal(array, first[name]), name


def _loop(trainer: Trainer, spec: RunSpec, digits: ImageDataset) -> LoopContext:
    return LoopContext(
        trainer=trainer,
        spec=spec,
        data=digits,
        extent=extent_of(spec, digits),
        recorder=PhaseRecorder(Clock()),
        console=Console(),
        check_interrupt=lambda: None,
        live=LiveReading,
        store=None,
    )


@pytest.fixture
def act_in_repeats(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call ``action`` once, in the first step that is reported of the ``number``-th repeated epoch."""

    def install(number: int, action: Callable[[], None]) -> None:
        make_hook = RepeatedTraining._step_hook
        calls = []

        def make_acting_hook(self: RepeatedTraining, *arguments: Any, **options: Any) -> Callable[[int], None]:
            on_step = make_hook(self, *arguments, **options)
            calls.append(on_step)
            if len(calls) != number:
                return on_step

            def hook(done: int) -> None:
                action()
                on_step(done)

            return hook

        monkeypatch.setattr(RepeatedTraining, "_step_hook", make_acting_hook)

    return install


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _fail() -> None:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("ending", ["interrupted", "failed"] if TORTURE else ["interrupted"])
def test_train_cut_short_in_a_repeat_keeps_the_first_training_and_repeats_anew(
    ending: str, run: Callable[..., int], act_in_repeats: Callable[..., None], tmp_path: Path
) -> None:
    checkpoints = {"repeat": 3, "checkpoint_dir": tmp_path / "checkpoints"}
    # In the second epoch of the first repeated training.
    act_in_repeats(2, _terminate if ending == "interrupted" else _fail)
    if ending == "interrupted":
        assert run(**checkpoints) == ExitCode.INTERRUPTED
    else:
        with pytest.raises(RuntimeError, match="luck"):
            run(**checkpoints)
    exported = tmp_path / "weights"
    before = _weights(exported, only_report(tmp_path / "reports"))
    for path in exported.iterdir():
        path.unlink()
    assert run(**checkpoints) == ExitCode.DONE
    first, second = reports_in(tmp_path / "reports")
    assert (first.status, second.status, second.attempt) == (ending, "completed", 2)
    assert first.run_id == second.run_id
    assert first.status_reason is not None
    if ending == "interrupted":
        assert first.status_reason.startswith("interrupted by SIGTERM in training 2 of 3 (--repeat)")
    # The results are those of the finished first training, in both attempts.
    assert _learned(first) == _learned(second)
    assert len(second.results.epochs) == 2
    for name, weight in _weights(exported, second).items():
        assert np.array_equal(weight, before[name]), name
    cut, whole = first.results.repeats, second.results.repeats
    assert cut is not None
    assert whole is not None
    # The first attempt counts the steps that it took. The second begins the repeats anew, with a step that compiles.
    assert cut.trainings == 0
    assert IMAGES <= cut.images < 2 * IMAGES
    assert (whole.trainings, whole.images) == (2, 2 * 2 * IMAGES - 64)
    assert [phase.name for phase in second.phases][-2:] == ["first_step", "train"]
    steady_s = _train_s(first, repeated=False) + whole.train_s
    assert second.results.steady_images_per_s == pytest.approx((2 * IMAGES - 64 + whole.images) / steady_s)
    assert first.unexplained_nulls() == second.unexplained_nulls() == []
    # Once finished, the same command trains nothing.
    assert run(**checkpoints) == ExitCode.DONE
    assert len(reports_in(tmp_path / "reports")) == 2


def test_train_another_number_of_repeats_does_not_resume(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(epochs=1, checkpoint_dir=tmp_path / "checkpoints") == ExitCode.DONE
    with pytest.raises(BadInput, match="repeat is 1 there and 2 here"):
        run(epochs=1, repeat=2, checkpoint_dir=tmp_path / "checkpoints")


def test_train_repeat_of_a_loss_that_is_not_finite_is_reported(
    run: Callable[..., int],
    act_in_repeats: Callable[..., None],
    framework: Framework,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainers: list[Trainer] = []
    create = framework.create_trainer

    def create_and_keep(spec: RunSpec, data: ImageDataset, group: RankGroup | None) -> Trainer:
        trainers.append(create(spec, data, group))
        return trainers[-1]

    monkeypatch.setattr(framework, "create_trainer", create_and_keep)

    def damage() -> None:
        weights = trainers[-1].weights()
        trainers[-1].load_weights({name: np.full_like(weight, np.nan) for name, weight in weights.items()})

    act_in_repeats(1, damage)
    assert run(repeat=2) == ExitCode.DIVERGED
    report = only_report(tmp_path / "reports")
    assert report.status == "diverged"
    assert report.status_reason is not None
    assert "training 2 of 2 (--repeat)" in report.status_reason
    assert len(report.results.epochs) == 2


def test_train_no_epochs_repeated_is_refused(run: Callable[..., int]) -> None:
    with pytest.raises(BadInput, match="--repeat 2: --epochs 0 trains nothing to repeat"):
        run(epochs=0, repeat=2, parity_steps=8)
