from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from jobs.checkpoint import Attempt, CheckpointStore, HardwareInfo, Resumed
from jobs.checkpoint.metadata import identity_of_report
from jobs.checkpoint.progress import EpochOutcome, Extent, TrainingProgress
from jobs.errors import BadInput
from jobs.phases import PhaseRecorder
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.adapter import Trainer

IDENTITY = {"recipe": "lenet", "seed": 1}
EXTENT = Extent(epochs=9, steps=100, train_examples=6400, test_examples=250)
HERE = HardwareInfo(device="cpu", cpu_model="a CPU")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class _Trainer:
    """The part of a trainer that is kept: one number."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def state(self) -> dict[str, Any]:
        return {"value": np.array(self.value)}

    def load_state(self, state: dict[str, Any]) -> None:
        if state.keys() != {"value"}:
            raise ValueError("it is not this model's state")
        self.value = float(state["value"])


class _Kept:
    """A run on a clock of its own, and its keeper."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.now_s = 0.0
        self.recorder = PhaseRecorder(lambda: self.now_s)
        self.outcome = TrainingProgress()
        self.keeper = CheckpointStore(
            folder,
            extent=EXTENT,
            every_steps=None,
            say=self.said.append,
            warn=lambda code, _: self.warned.append(code),
        )

    def begin(self, attempt: int = 1, run_id: str = "run-1") -> Attempt:
        return self.keeper.begin(IDENTITY, Attempt(run_id=run_id, number=attempt, started_at=NOW), HERE)

    def save(self, epoch: int, step: int, value: float) -> None:
        self.outcome.epoch, self.outcome.step = epoch, step
        self.outcome.epochs = [
            EpochOutcome(epoch=number, train_loss=0.5, test_loss=0.5, accuracy_ratio=0.5) for number in range(1, epoch)
        ]
        self.keeper.save(cast("Trainer", _Trainer(value)), self.outcome, self.recorder)

    def resume(self) -> tuple[Any, float]:
        trainer = _Trainer()
        return self.keeper.resume(IDENTITY, cast("Trainer", trainer)), trainer.value


@pytest.fixture
def kept(tmp_path: Path) -> _Kept:
    kept = _Kept(tmp_path)
    kept.begin()
    return kept


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".attempt-" not in path.name)


def test_two_are_kept_and_the_furthest_is_taken(kept: _Kept, tmp_path: Path) -> None:
    for number, (epoch, step) in enumerate([(1, 5), (2, 0), (2, 5), (3, 0)]):
        kept.save(epoch, step, number)
    assert _names(tmp_path) == ["run-1-e000002-s000005.safetensors", "run-1-e000003-s000000.safetensors"]
    # A clock that was set back does not make an older one newer.
    os.utime(tmp_path / "run-1-e000002-s000005.safetensors", (2e9, 2e9))
    resumed, value = _Kept(tmp_path).resume()
    assert value == 3
    assert (resumed.state.epoch, resumed.state.step) == (3, 0)


def test_no_two_attempts_have_one_number(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 5, 1.0)
    # Two that go on from the same checkpoint, and one after an attempt that left none.
    assert [_Kept(tmp_path).begin(2).number for _ in range(3)] == [2, 3, 4]
    assert _Kept(tmp_path).begin(1, "run-2").number == 1


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for look in (
        lambda keeper: keeper.finished(IDENTITY),
        lambda keeper: keeper.resume(IDENTITY, cast("Trainer", _Trainer())),
    ):
        with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
            look(CheckpointStore(absent, extent=EXTENT, every_steps=None, say=print, warn=print))


def test_a_pipe_is_not_waited_for(kept: _Kept, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run-1.finished")
    os.mkfifo(tmp_path / "run-1-e000001-s000001.safetensors")
    assert kept.keeper.finished(IDENTITY) is None
    assert kept.resume() == (None, 0.0)
    assert sum("no regular file" in line for line in kept.said) == 2


def test_nothing_to_keep_before_the_first_step(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 0, 1.0)
    assert _names(tmp_path) == []
    assert kept.resume() == (None, 0.0)


def test_the_same_position_is_kept_once(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 5, 1.0)
    kept.save(1, 5, 2.0)
    assert _Kept(tmp_path).resume()[1] == 1.0


def test_a_damaged_one_is_named_is_not_counted_and_the_one_before_is_taken(kept: _Kept, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        kept.save(1, step, step)
    newest = tmp_path / "run-1-e000001-s000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    again = _Kept(tmp_path)
    resumed, value = again.resume()
    assert value == 2
    assert len(again.said) == 1
    assert newest.name in again.said[0]
    again.keeper.begin(IDENTITY, resumed.next_attempt(NOW), HERE)
    again.save(1, 4, 4.0)
    # The damaged one stays for whoever wants to know, and takes no good one's place.
    assert _names(tmp_path) == [f"run-1-e000001-s00000{step}.safetensors" for step in (2, 3, 4)]


def test_a_state_that_is_not_this_model_s_is_passed_over(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 1, 1.0)
    kept.outcome.step = 2
    strange = _Trainer()
    strange.state = lambda: {"other": np.zeros(2)}  # type: ignore[method-assign]
    kept.keeper.save(cast("Trainer", strange), kept.outcome, kept.recorder)
    again = _Kept(tmp_path)
    assert again.resume()[1] == 1.0
    assert "not this model's state" in again.said[0]


@pytest.mark.parametrize(
    ("epoch", "step", "changes"),
    [
        (1, 101, {}),
        (10, 1, {}),
        (11, 0, {}),
        (2, 0, {"examples_evaluated": 251}),
        (2, 0, {"first_step_images": [(1, 6000), (1, 401)]}),
        (2, 0, {"first_step_images": [(10, 64)]}),
    ],
)
def test_one_that_has_come_further_than_there_is_way_is_refused_by_name(
    kept: _Kept, tmp_path: Path, epoch: int, step: int, changes: dict[str, Any]
) -> None:
    kept.save(1, 1, 1.0)
    for name, value in changes.items():
        setattr(kept.outcome, name, value)
    kept.save(epoch, step, 2.0)
    again = _Kept(tmp_path)
    # The good one before it is taken, and its state alone reaches the trainer.
    resumed, value = again.resume()
    assert (resumed.state.step, value) == (1, 1.0)
    (line,) = again.said
    assert f"-e{epoch:06d}-s{step:06d}.safetensors' is refused: " in line


def test_another_configuration_is_refused_with_both_values(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 1, 1.0)
    with pytest.raises(BadInput, match="seed is 1 there and 2 here; give the options it was started with"):
        CheckpointStore(tmp_path, extent=EXTENT, every_steps=None, say=print, warn=print).resume(
            {"recipe": "lenet", "seed": 2}, cast("Trainer", _Trainer())
        )


def test_time_and_attempts_are_carried_on(kept: _Kept, tmp_path: Path) -> None:
    kept.recorder.enter("train", epoch=1)
    kept.now_s = 2.5
    kept.recorder.enter("checkpoint", epoch=1)
    kept.save(1, 5, 1.0)
    second = _Kept(tmp_path)
    resumed, _ = second.resume()
    resumed.restore(second.outcome, second.recorder)
    attempt = resumed.next_attempt(NOW)
    assert (attempt.run_id, attempt.number) == ("run-1", 2)
    assert attempt.earlier[0].phases_s == {"train": 2.5}
    second.keeper.begin(IDENTITY, attempt, HERE)
    second.recorder.enter("train", epoch=1)
    second.now_s = 1.0
    second.recorder.enter("checkpoint", epoch=1)
    assert second.recorder.total_s("train", epoch=1) == 3.5
    assert second.recorder.seconds_by_name() == {"train": 1.0}
    second.save(1, 9, 1.0)
    resumed, _ = _Kept(tmp_path).resume()
    assert [one.attempt for one in resumed.next_attempt(NOW).earlier] == [1, 2]
    assert resumed.hardware_changes(HERE) is None
    another = HardwareInfo(device="cpu", cpu_model="another")
    assert "the CPU was 'a CPU' and is 'another'" in resumed.hardware_changes(another)
    # Also where the last attempt ran on the same: the first one's time is in the run's.
    last = resumed.state.attempts[-1].model_copy(update={"cpu_model": "another"})
    state = resumed.state.model_copy(update={"attempts": [resumed.state.attempts[0], last]})
    assert "the CPU was 'a CPU'" in Resumed(path=tmp_path, state=state).hardware_changes(another)


def test_no_room_costs_only_the_checkpoint(kept: _Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(1, 1, 1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jobs.io.atomic_file._write", full)
        kept.save(1, 2, 2.0)
        kept.save(1, 3, 2.0)
    # Said each time, and once in the report.
    assert len(kept.said) == 2
    assert kept.warned == ["checkpoint_not_written"]
    assert "No space left on device" in kept.said[0]
    assert _names(tmp_path) == ["run-1-e000001-s000001.safetensors"]
    kept.save(1, 4, 3.0)
    assert _Kept(tmp_path).resume()[1] == 3.0


def test_a_folder_that_vanished_is_made_again(kept: _Kept, tmp_path: Path) -> None:
    kept.save(1, 1, 1.0)
    shutil.rmtree(tmp_path)
    kept.save(1, 2, 2.0)
    assert _names(tmp_path) == ["run-1-e000001-s000002.safetensors"]


def test_files_that_can_run_code_are_named_and_not_opened(kept: _Kept, tmp_path: Path) -> None:
    for name in ("model.pt", "model.KERAS", "weights.h5", "notes.txt"):
        (tmp_path / name).write_bytes(b"anything")
    assert kept.resume() == (None, 0.0)
    assert len(kept.said) == 3
    assert all("never opened" in line for line in kept.said)


def test_a_finished_run_is_found_with_its_report(kept: _Kept) -> None:
    report = make_report()
    identity = identity_of_report(report)
    assert kept.keeper.finished(identity) is None
    kept.keeper.finish(report)
    assert kept.keeper.finished(identity) == report
    with pytest.raises(BadInput, match="epochs is"):
        kept.keeper.finished(identity | {"epochs": 99})


@pytest.mark.parametrize("change", [{"status": "interrupted"}, {"status": "failed"}, {"attempt": 10**300}])
def test_a_report_that_ends_no_run_is_named_and_passed_over(kept: _Kept, change: dict[str, Any]) -> None:
    report = make_report()
    kept.keeper.finish(report.model_copy(update=change))
    assert kept.keeper.finished(identity_of_report(report)) is None
    assert "is no end of a run" in kept.said[0]


def test_a_finished_report_that_is_damaged_is_named_and_passed_over(kept: _Kept, tmp_path: Path) -> None:
    report = make_report()
    kept.keeper.finish(report)
    (path,) = tmp_path.glob("*.finished")
    path.write_text("{")
    assert kept.keeper.finished(identity_of_report(report)) is None
    assert path.name in kept.said[0]
