from __future__ import annotations

import json
import math
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from jobs.adapter import RunSpec
from jobs.checkpoint import Resumed
from jobs.checkpoint import codec as file
from jobs.checkpoint.codec import FORMAT, CorruptCheckpoint, decode, encode
from jobs.checkpoint.metadata import CheckpointMetadata, check_extent, differences, parse_state
from jobs.checkpoint.progress import EpochOutcome, TrainingProgress, extent_of
from jobs.errors import BadInput
from jobs.phases import PhaseRecorder
from jobs.recipes import LENET
from jobs.report.schema import EarlierAttempt
from jobs.training.report_builder import _results
from jobs.weights_file import read_weights_file
from tests.support.digits import small_digits

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_state(**changes: Any) -> CheckpointMetadata:
    this = EarlierAttempt(
        attempt=1,
        started_at_utc=NOW,
        saved_at_utc=NOW,
        epoch=2,
        step=3,
        device="cpu",
        cpu_model=None,
        phases_s={"train": 1.5},
    )
    fields: dict[str, Any] = {
        "identity": {"recipe": "lenet", "seed": 1, "learning_rate": 0.001},
        "run_id": "run-1",
        "attempt": 1,
        "epoch": 2,
        "step": 3,
        "epochs": [EpochOutcome(epoch=1, train_loss=0.1, test_loss=float("inf"), accuracy_ratio=0.9)],
        "examples_evaluated": 250,
        "spent": [],
        "first_step_images": [(1, 64)],
        "attempts": [this],
        "saved_at_utc": NOW,
    }
    return CheckpointMetadata(**(fields | changes))


ARRAYS = {
    "weights/0": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "step": np.array(7.0),
    "random": np.arange(5, dtype=np.uint8),
    "nothing": np.zeros((0, 3), np.int64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(encode(make_state(), ARRAYS))
    return path


def test_what_goes_in_comes_out_to_the_last_bit(path: Path) -> None:
    found = decode(path)
    assert found.state == make_state()
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


@settings(max_examples=300)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    import tempfile
    from pathlib import Path

    content = bytearray(encode(make_state(), ARRAYS))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as stream:
        stream.write(content)
        stream.flush()
        try:
            found = decode(Path(stream.name))
        except CorruptCheckpoint:
            return
    # A byte that means nothing, such as white space in the header, may change.
    assert found.state == make_state()
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize("size", [0, 1, 8, 100, 500, -1])
def test_a_file_cut_short_is_refused(size: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptCheckpoint, match="no whole safetensors file"):
        decode(path)


def _forged(text: str, **metadata: str) -> bytes:
    arrays = {"a": np.zeros(3)}
    facts = {"format": FORMAT, "state": text, "sha256": file._digest(text, arrays)} | metadata
    return save(arrays, metadata=facts)


def _changed(**changes: Any) -> bytes:
    """A whole checkpoint with the right hash, whose state someone has changed."""
    state = json.loads(make_state().to_text())
    parts = {
        "epochs": lambda epoch: state["epochs"][0] | epoch,
        "attempts": lambda attempt: state["attempts"][0] | attempt,
    }
    for name, value in changes.items():
        state[name] = [parts[name](one) for one in value] if name in parts else value
    return _forged(json.dumps(state))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a": 1}), "no whole safetensors file"),
        (save({"a": np.zeros(3)}), "its format is None"),
        (_forged("{}", format="mnist-jobs weights 1"), "its format is 'mnist-jobs weights 1'"),
        (_forged("{}", sha256="0" * 64), "does not have the hash"),
        (_forged("{}"), "cannot be read"),
        (_forged("[" * 100_000), "cannot be read"),
        (_forged(make_state(run_id="ok").to_text().replace('"ok"', '"../../etc"')), "cannot be read"),
        (_forged(make_state(epoch=3).to_text()), "epoch 3 is in progress, but the finished ones are"),
        (_forged(json.dumps(json.loads(make_state().to_text()) | {"more": 1})), "cannot be read"),
        (_changed(epochs=[{"accuracy_ratio": 5.0}]), "no share between 0 and 1"),
        (_changed(epochs=[{"accuracy_ratio": math.nan}]), "no share between 0 and 1"),
        (_changed(attempt=2), r"attempt 2 wrote it, but the attempts are [1]"),
        (_changed(attempts=[{}, {}]), r"attempt 1 wrote it, but the attempts are [1, 1]"),
        (_changed(attempt=10**30, attempts=[{"attempt": 10**30}]), "cannot be read"),
        (_changed(attempts=[{"phases_s": {"train": 1e300}}]), "took more than 1e.09 s"),
        (_changed(spent=[{"name": "train", "epoch": 1, "seconds": 1e300}]), "cannot be read"),
        (_changed(spent=[{"name": "train", "epoch": 1, "seconds": 1e-300}]), "no clock tells so short a time"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_its_reason(content: bytes, reason: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match=reason.replace("[", r"\[")):
        decode(path)


def test_a_type_that_numpy_has_not_is_refused(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(CorruptCheckpoint, match="no whole safetensors file"):
        decode(path)
    with pytest.raises(BadInput, match="no safetensors file"):
        read_weights_file(path)


def test_a_file_that_has_gone_is_refused(path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="cannot be looked at"):
        decode(path.parent / "absent")


def test_a_file_without_end_is_not_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LARGEST_BYTES", 10)
    with pytest.raises(CorruptCheckpoint, match="more than any checkpoint has"):
        decode(path)
    with pytest.raises(CorruptCheckpoint, match="no regular file"):
        decode(path.parent)


@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.sampled_from([None, 10_000]),
)
def test_a_state_reads_back_equal(losses: list[float], accuracy: float, step: int, examples: int | None) -> None:
    epochs = [
        EpochOutcome(epoch=number, train_loss=loss, test_loss=loss, accuracy_ratio=accuracy)
        for number, loss in enumerate(losses, start=1)
    ]
    state = make_state(epochs=epochs, epoch=len(losses) + 1, step=step, examples_evaluated=examples)
    assert parse_state(state.to_text()) == state


DIGITS = small_digits()
NUMBERS = st.sampled_from([0, 1, 2, 3, 64, 650, 10**9, 10**30]) | st.integers(-1, 100)
SECONDS = st.sampled_from([0.0, 5e-324, 1e-9, 1.5, 1e9, 1e300, 1.797e308]) | st.floats(0, 1e10)


@given(
    epochs=st.integers(1, 4),
    step=NUMBERS,
    accuracy=st.floats(0, 1) | st.floats(),
    loss=st.floats(),
    examples=st.none() | NUMBERS,
    seconds=SECONDS,
    first=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3),
)
def test_a_state_that_is_accepted_gives_results_that_a_report_can_hold(
    epochs: int,
    step: int,
    accuracy: float,
    loss: float,
    examples: int | None,
    seconds: float,
    first: list[tuple[int, int]],
) -> None:
    finished = [
        EpochOutcome(epoch=number, train_loss=loss, test_loss=loss, accuracy_ratio=accuracy)
        for number in range(1, epochs + 1)
    ]
    spent = [
        {"name": name, "epoch": number, "seconds": seconds}
        for name in ("train", "first_step")
        for number in range(1, epochs + 1)
    ]
    content = json.loads(make_state(epoch=epochs + 1, epochs=finished).to_text()) | {
        "step": step,
        "examples_evaluated": examples,
        "spent": spent,
        "first_step_images": first,
    }
    spec = RunSpec(
        recipe=LENET,
        protocol="matched",
        seed=1,
        epochs=3,
        batch_size=64,
        learning_rate=0.001,
        precision="fp32",
        execution="eager",
        input="resident",
        device="cpu",
    )
    try:
        state = parse_state(json.dumps(content))
        check_extent(state, extent_of(spec, DIGITS))
    except ValueError:
        return
    outcome, recorder = TrainingProgress(), PhaseRecorder(lambda: 0.0)
    Resumed(path=Path("it"), state=state).restore(outcome, recorder)
    results, _ = _results(spec, DIGITS, outcome, recorder)
    assert len(results.epochs) == epochs


def test_differences_name_both_values() -> None:
    assert differences({"seed": 1, "recipe": "lenet"}, {"seed": 2, "recipe": "lenet", "device": "cpu"}) == [
        "device is missing there and cpu here",
        "seed is 1 there and 2 here",
    ]
