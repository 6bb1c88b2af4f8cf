from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from jobs.checkpoint.metadata import Attempt, Extent, TrainingProgress
from jobs.checkpoint.store import CheckpointStore, next_attempt
from jobs.errors import BadInput
from jobs.phases import PhaseRecorder
from tests.checkpoint.test_codec import make_epoch
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.adapter import Trainer
    from jobs.checkpoint.codec import Checkpoint

FINGERPRINT = {"recipe.name": "lenet", "seed": "1"}
EXTENT = Extent(epochs=9, steps=100, train_examples=6400, test_examples=250)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_attempt(number: int = 1, run_id: str = "run-1", cpu_model: str = "a CPU", **more: Any) -> Attempt:
    return Attempt(run_id=run_id, number=number, started_at=NOW, device="cpu", cpu_model=cpu_model, **more)


class _Trainer:
    """A trainer whose state is one number."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def state(self) -> dict[str, Any]:
        return {"value": np.array(self.value)}

    def load_state(self, state: dict[str, Any]) -> None:
        if state.keys() != {"value"}:
            raise ValueError("it is not this model's state")
        self.value = float(state["value"])


class _Run:
    """A run with its checkpoint store, on a clock that the test sets."""

    def __init__(self, folder: Path, fingerprint: dict[str, str] = FINGERPRINT) -> None:
        self.logged: list[str] = []
        self.warned: list[str] = []
        self.now_s = 0.0
        self.recorder = PhaseRecorder(lambda: self.now_s)
        self.progress = TrainingProgress()
        self.store = CheckpointStore(
            folder,
            fingerprint=fingerprint,
            extent=EXTENT,
            every_steps=None,
            log=self.logged.append,
            warn=lambda code, _: self.warned.append(code),
        )

    def save(self, epoch: int, step: int, value: float) -> None:
        self.progress.epoch, self.progress.step = epoch, step
        self.progress.epochs = [make_epoch(number) for number in range(1, epoch)]
        self.store.save(cast("Trainer", _Trainer(value)), self.progress, self.recorder)

    def resume(self) -> tuple[Checkpoint | None, float]:
        trainer = _Trainer()
        return self.store.resume(cast("Trainer", trainer)), trainer.value


@pytest.fixture
def run(tmp_path: Path) -> _Run:
    run = _Run(tmp_path)
    run.store.register_attempt(make_attempt())
    return run


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".attempt-" not in path.name)


def test_save_keeps_two_and_resume_takes_the_furthest(run: _Run, tmp_path: Path) -> None:
    for number, (epoch, step) in enumerate([(1, 5), (2, 0), (2, 5), (3, 0)]):
        run.save(epoch, step, number)
    assert _names(tmp_path) == ["run-1-e000002-s000005.safetensors", "run-1-e000003-s000000.safetensors"]
    # A clock that was set back does not make an older one newer.
    os.utime(tmp_path / "run-1-e000002-s000005.safetensors", (2e9, 2e9))
    checkpoint, value = _Run(tmp_path).resume()
    assert value == 3
    assert checkpoint is not None
    assert (checkpoint.metadata.progress.epoch, checkpoint.metadata.progress.step) == (3, 0)


def test_register_attempt_gives_each_attempt_its_own_number(run: _Run, tmp_path: Path) -> None:
    run.save(1, 5, 1.0)
    # Two that resume the same checkpoint, and one after an attempt that left none.
    assert [_Run(tmp_path).store.register_attempt(make_attempt(2)).number for _ in range(3)] == [2, 3, 4]
    assert _Run(tmp_path).store.register_attempt(make_attempt(1, "run-2")).number == 1


def test_next_attempt_is_told_by_names_alone(run: _Run, tmp_path: Path) -> None:
    assert next_attempt(None) is None
    assert next_attempt(tmp_path / "absent") is None
    # An attempt that left no checkpoint is not gone on from.
    assert next_attempt(tmp_path) is None
    run.save(1, 5, 1.0)
    assert next_attempt(tmp_path) == ("run-1", 2)
    _Run(tmp_path).store.register_attempt(make_attempt(2))
    for number in ("x", "²", "٣", "9" * 200):
        (tmp_path / f"run-1.attempt-{number}").touch()
    (tmp_path / "run-2.attempt-9").touch()
    assert next_attempt(tmp_path) == ("run-1", 3)


def test_register_attempt_in_a_folder_that_has_gone_ends_no_run(tmp_path: Path) -> None:
    assert _Run(tmp_path / "absent").store.register_attempt(make_attempt(3)).number == 3


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    absent = _Run(tmp_path / "absent")
    for look in (absent.store.finished_report, absent.resume):
        with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
            look()


def test_a_pipe_or_folder_with_our_name_is_not_read_but_named(run: _Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run-1.finished")
    os.mkfifo(tmp_path / "run-1-e000001-s000001.safetensors")
    (tmp_path / "run-1-e000001-s000002.safetensors").mkdir()
    (tmp_path / "run-1-e000001-s000003.safetensors").symlink_to("gone")
    (tmp_path / "another").mkdir()
    assert run.store.finished_report() is None
    assert run.resume() == (None, 0.0)
    # Each is named once, although the folder is looked through several times.
    assert run.logged == [
        f"checkpoint '{tmp_path / name}' is refused: it is not a regular file"
        for name in (
            "run-1-e000001-s000001.safetensors",
            "run-1-e000001-s000002.safetensors",
            "run-1-e000001-s000003.safetensors",
            "run-1.finished",
        )
    ]


def test_save_before_the_first_step_writes_nothing(run: _Run, tmp_path: Path) -> None:
    run.save(1, 0, 1.0)
    assert _names(tmp_path) == []
    assert run.resume() == (None, 0.0)


def test_save_at_the_same_position_writes_once(run: _Run, tmp_path: Path) -> None:
    run.save(1, 5, 1.0)
    run.save(1, 5, 2.0)
    assert _Run(tmp_path).resume()[1] == 1.0


def test_resume_past_a_damaged_checkpoint_names_it_and_takes_the_one_before(run: _Run, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        run.save(1, step, step)
    newest = tmp_path / "run-1-e000001-s000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    again = _Run(tmp_path)
    _, value = again.resume()
    assert value == 2
    assert len(again.logged) == 1
    assert newest.name in again.logged[0]
    again.store.register_attempt(make_attempt(2))
    again.save(1, 4, 4.0)
    # The damaged one stays for an inspection, and counts for none of the two that are kept.
    assert _names(tmp_path) == [f"run-1-e000001-s00000{step}.safetensors" for step in (2, 3, 4)]


def test_resume_past_another_model_state_takes_the_one_before(run: _Run, tmp_path: Path) -> None:
    run.save(1, 1, 1.0)
    run.progress.step = 2
    other = _Trainer()
    other.state = lambda: {"other": np.zeros(2)}  # type: ignore[method-assign]
    run.store.save(cast("Trainer", other), run.progress, run.recorder)
    again = _Run(tmp_path)
    assert again.resume()[1] == 1.0
    assert "not this model's state" in again.logged[0]


@pytest.mark.parametrize(
    ("epoch", "step", "changes"),
    [
        (1, 101, {}),
        (10, 1, {}),
        (11, 0, {}),
        (2, 0, {"examples_evaluated": 251}),
        (2, 0, {"first_step_images": 6401}),
        (2, 0, {"steady_images": 6401}),
    ],
)
def test_resume_past_impossible_progress_names_it_and_takes_the_one_before(
    run: _Run, tmp_path: Path, epoch: int, step: int, changes: dict[str, Any]
) -> None:
    run.save(1, 1, 1.0)
    for name, value in changes.items():
        setattr(run.progress, name, value)
    run.save(epoch, step, 2.0)
    again = _Run(tmp_path)
    checkpoint, value = again.resume()
    assert checkpoint is not None
    assert (checkpoint.metadata.progress.step, value) == (1, 1.0)
    (line,) = again.logged
    assert f"-e{epoch:06d}-s{step:06d}.safetensors' is refused: " in line


def test_resume_of_another_configuration_is_refused_with_both_values(run: _Run, tmp_path: Path) -> None:
    run.save(1, 1, 1.0)
    other = _Run(tmp_path, FINGERPRINT | {"seed": "2", "new_option": "on"})
    with pytest.raises(BadInput) as refused:
        other.resume()
    assert "run-1-e000001-s000001.safetensors" in str(refused.value)
    assert "new_option is missing there and on here; seed is 1 there and 2 here" in str(refused.value)
    assert "or another --checkpoint-dir" in str(refused.value)


def test_resume_carries_time_and_attempts_on(run: _Run, tmp_path: Path) -> None:
    run.recorder.enter("first_step", epoch=1)
    run.now_s = 0.5
    run.recorder.enter("train", epoch=1)
    run.now_s = 2.5
    run.recorder.enter("checkpoint", epoch=1)
    run.save(1, 5, 1.0)
    second = _Run(tmp_path)
    checkpoint, _ = second.resume()
    assert checkpoint is not None
    second.progress = checkpoint.metadata.progress
    (earlier,) = checkpoint.metadata.attempts
    assert (checkpoint.metadata.run_id, earlier.attempt) == ("run-1", 1)
    assert earlier.phases_s == {"first_step": 0.5, "train": 2.0}
    second.store.register_attempt(make_attempt(2, earlier=[earlier]))
    second.recorder.enter("train", epoch=1)
    second.now_s = 1.0
    second.recorder.enter("checkpoint", epoch=1)
    assert second.progress.wall_s(second.recorder) == 3.5
    assert second.progress.epoch_steady_s(second.recorder) == 3.0
    assert second.recorder.seconds_by_name() == {"train": 1.0}
    second.save(1, 9, 1.0)
    checkpoint, _ = _Run(tmp_path).resume()
    assert checkpoint is not None
    assert [one.attempt for one in checkpoint.metadata.attempts] == [1, 2]
    # Saved times are those of all attempts, counted once.
    assert checkpoint.metadata.progress.earlier_wall_s == 3.5
    assert checkpoint.metadata.progress.earlier_steady_s == 3.0


def test_hardware_changes_of_any_earlier_attempt_are_named(run: _Run, tmp_path: Path) -> None:
    run.save(1, 5, 1.0)
    checkpoint, _ = _Run(tmp_path).resume()
    assert checkpoint is not None
    (first,) = checkpoint.metadata.attempts
    assert make_attempt(2, earlier=[first]).hardware_changes() is None
    # Also where the last attempt ran on the same: the first one's time is part of the run's.
    last = first.model_copy(update={"attempt": 2, "cpu_model": "another"})
    changes = make_attempt(3, cpu_model="another", earlier=[first, last]).hardware_changes()
    assert changes is not None
    assert "the CPU was 'a CPU' and is 'another'" in changes


def test_save_on_a_full_disk_costs_only_the_checkpoint(
    run: _Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(1, 1, 1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jobs.io.atomic_file._write", full)
        run.save(1, 2, 2.0)
        run.save(1, 3, 2.0)
    # Logged each time, and once in the report.
    assert len(run.logged) == 2
    assert run.warned == ["checkpoint_not_written"]
    assert "No space left on device" in run.logged[0]
    assert _names(tmp_path) == ["run-1-e000001-s000001.safetensors"]
    run.save(1, 4, 3.0)
    assert _Run(tmp_path).resume()[1] == 3.0


def test_save_into_a_folder_that_vanished_makes_it_again(run: _Run, tmp_path: Path) -> None:
    run.save(1, 1, 1.0)
    shutil.rmtree(tmp_path)
    run.save(1, 2, 2.0)
    assert _names(tmp_path) == ["run-1-e000001-s000002.safetensors"]


def test_resume_beside_files_that_can_run_code_names_them_and_opens_none(run: _Run, tmp_path: Path) -> None:
    for name in ("model.pt", "model.KERAS", "weights.h5", "notes.txt"):
        (tmp_path / name).write_bytes(b"anything")
    assert run.resume() == (None, 0.0)
    assert len(run.logged) == 3
    assert all("never opened" in line for line in run.logged)


def test_finished_report_of_a_finished_run_is_its_report(run: _Run, tmp_path: Path) -> None:
    report = make_report(gpu=True, timeseries=True)
    assert run.store.finished_report() is None
    run.store.finish(report)
    assert run.store.finished_report() == report
    with pytest.raises(BadInput, match=r"\.finished' belongs to another run: epochs is missing there and 99 here"):
        _Run(tmp_path, FINGERPRINT | {"epochs": "99"}).store.finished_report()


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_finished_report_of_a_run_that_may_go_on_is_none(run: _Run, status: str) -> None:
    run.store.finish(make_report().model_copy(update={"status": status}))
    assert run.store.finished_report() is None


def test_finished_report_of_an_impossible_attempt_is_none_and_names_it(run: _Run) -> None:
    run.store.finish(make_report().model_copy(update={"attempt": 10**300}))
    assert run.store.finished_report() is None
    (line,) = run.logged
    assert ".finished' is refused: its attempt is not plausible" in line


def test_resume_of_the_last_possible_attempt_names_it_and_takes_the_one_before(run: _Run, tmp_path: Path) -> None:
    run.save(1, 1, 1.0)
    last = _Run(tmp_path)
    last.store.register_attempt(make_attempt(10**9))
    last.save(1, 2, 2.0)
    again = _Run(tmp_path)
    assert again.resume()[1] == 1.0
    (line,) = again.logged
    assert "attempt 1000000000 wrote it, and no later one is possible" in line


@pytest.mark.parametrize("text", ["{", "[]", "\x00" * 8, '{"fingerprint": {}, "report": {}}'])
def test_finished_report_of_a_damaged_file_is_none_and_names_it(run: _Run, tmp_path: Path, text: str) -> None:
    run.store.finish(make_report())
    (path,) = tmp_path.glob("*.finished")
    path.write_text(text)
    assert run.store.finished_report() is None
    assert path.name in run.logged[0]
