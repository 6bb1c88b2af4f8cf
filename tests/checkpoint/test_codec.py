from __future__ import annotations

import json
import math
import pickle
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from jobs.adapter import RunSpec
from jobs.checkpoint import codec
from jobs.checkpoint.codec import FORMAT, CorruptCheckpoint, decode, encode
from jobs.checkpoint.metadata import (
    MAX_DIFFERENCES,
    CheckpointMetadata,
    Extent,
    TrainingProgress,
    differences,
    extent_of,
)
from jobs.errors import BadInput
from jobs.io import safetensors_file
from jobs.phases import PhaseRecorder
from jobs.recipes import LENET
from jobs.report.schema import EarlierAttempt, EpochResult
from jobs.training.report_builder import _results
from jobs.weights_file import read_weights_file
from tests.support.digits import small_digits

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_epoch(number: int, **changes: Any) -> EpochResult:
    values = {"epoch": number, "wall_s": 1.5, "train_loss": 0.1, "test_loss": None, "test_accuracy_ratio": 0.9}
    return EpochResult(**values | changes)


def make_metadata(**progress: Any) -> CheckpointMetadata:
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
    values: dict[str, Any] = {
        "epoch": 2,
        "step": 3,
        "epochs": [make_epoch(1)],
        "examples_evaluated": 250,
        "steady_images": 586,
        "steady_s": 1.25,
        "first_step_images": 64,
        "earlier_wall_s": 0.5,
        "earlier_steady_s": 0.25,
    }
    return CheckpointMetadata(
        fingerprint={"recipe.name": "lenet", "seed": "1"},
        run_id="run-1",
        progress=TrainingProgress(**values | progress),
        attempts=[this],
    )


ARRAYS = {
    "weights/0": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "step": np.array(7.0),
    "random": np.arange(5, dtype=np.uint8),
    "nothing": np.zeros((0, 3), np.int64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(encode(make_metadata(), ARRAYS))
    return path


def test_decode_of_encoded_checkpoint_is_equal_to_the_last_bit(path: Path) -> None:
    read = decode(path)
    assert read.metadata == make_metadata()
    assert read.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read.arrays[name].dtype, read.arrays[name].shape) == (array.dtype, array.shape)
        assert read.arrays[name].tobytes() == array.tobytes()


@settings(max_examples=300)
@given(st.data())
def test_decode_with_a_changed_byte_is_refused(data: st.DataObject) -> None:
    content = bytearray(encode(make_metadata(), ARRAYS))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as stream:
        stream.write(content)
        stream.flush()
        try:
            read = decode(Path(stream.name))
        except CorruptCheckpoint:
            return
    # A byte that means nothing, such as white space in the header, may change.
    assert read.metadata == make_metadata()
    assert {name: array.tobytes() for name, array in read.arrays.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize("size", [0, 1, 8, 100, 500, -1])
def test_decode_of_a_file_cut_short_is_refused(size: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptCheckpoint, match="no complete safetensors file"):
        decode(path)


def _forged(text: str, **header: str) -> bytes:
    arrays = {"a": np.zeros(3)}
    return save(arrays, metadata={"format": FORMAT, "run": text, "sha256": codec._digest(text, arrays)} | header)


def _changed(**progress: Any) -> bytes:
    """A checkpoint with the right hash, whose metadata someone has changed."""
    metadata = json.loads(make_metadata().model_dump_json())
    metadata["progress"] |= progress
    return _forged(json.dumps(metadata))


def _with_attempts(*changes: dict[str, Any]) -> bytes:
    metadata = json.loads(make_metadata().model_dump_json())
    metadata["attempts"] = [metadata["attempts"][0] | change for change in changes]
    return _forged(json.dumps(metadata))


def _with_epoch(**changes: Any) -> bytes:
    epoch = json.loads(make_epoch(1).model_dump_json())
    return _changed(epochs=[epoch | changes])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a": 1}), "no complete safetensors file"),
        (save({"a": np.zeros(3)}), "its format is None"),
        (_forged("{}", format="mnist-jobs weights 1"), "its format is 'mnist-jobs weights 1'"),
        (_forged("{}", sha256="0" * 64), "does not have the hash"),
        (_forged("{}"), "cannot be read"),
        (_forged("[" * 100_000), "cannot be read"),
        (_forged(make_metadata().model_dump_json().replace('"run-1"', '"../../etc"')), "cannot be read"),
        (_forged(json.dumps(json.loads(make_metadata().model_dump_json()) | {"more": 1})), "cannot be read"),
        (_with_epoch(test_accuracy_ratio=5.0), "less than or equal to 1"),
        (_with_epoch(test_accuracy_ratio=math.nan), "cannot be read"),
        (_with_epoch(test_accuracy_ratio="1"), "cannot be read"),
        (_changed(earlier_wall_s=1e300), "is not plausible"),
        (_changed(steady_s=1e-300), "is not plausible"),
        (_changed(step=-1), "cannot be read"),
        (_with_attempts(), "cannot be read"),
        (_with_attempts({}, {}), r"the attempts are \[1, 1\]"),
        (_with_attempts({"attempt": 2}, {"attempt": 1}), r"the attempts are \[2, 1\]"),
        (_with_attempts({"attempt": 10**9 + 1}), "the largest number is 1000000000"),
        (_with_attempts({"attempt": 10**30}), "the largest number is 1000000000"),
        (_with_attempts({"phases_s": {"train": 1e300}}), "is not plausible"),
        (_with_attempts({"phases_s": {"train": 1e-300}}), "is not plausible"),
    ],
)
def test_decode_of_what_is_no_checkpoint_is_refused_with_its_reason(content: bytes, reason: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match=reason):
        decode(path)


def test_decode_of_a_type_unknown_to_numpy_is_refused(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(CorruptCheckpoint, match="no complete safetensors file"):
        decode(path)
    with pytest.raises(BadInput, match="no complete safetensors file"):
        read_weights_file(path)


def test_decode_of_a_missing_or_huge_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (path.parent / "absent", path.parent):
        with pytest.raises(CorruptCheckpoint, match="no complete safetensors file"):
            decode(missing)
    monkeypatch.setattr(safetensors_file, "MAX_BYTES", 10)
    with pytest.raises(CorruptCheckpoint, match="at most 10 are read"):
        decode(path)


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.sampled_from([None, 10_000]),
)
def test_metadata_from_its_json_is_equal(
    losses: list[float | None], accuracy: float, step: int, examples: int | None
) -> None:
    epochs = [
        make_epoch(number, train_loss=loss, test_loss=loss, test_accuracy_ratio=accuracy)
        for number, loss in enumerate(losses, start=1)
    ]
    metadata = make_metadata(epochs=epochs, epoch=len(losses) + 1, step=step, examples_evaluated=examples)
    assert CheckpointMetadata.model_validate_json(metadata.model_dump_json(), strict=True) == metadata


EXTENT = Extent(epochs=3, steps=11, train_examples=650, test_examples=250)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epoch": 3}, r"epoch 3 is in progress, but the finished epochs are \[1\]"),
        ({"step": 12}, "12 steps into epoch 2, of 3 epochs of 11 steps"),
        ({"epochs": [make_epoch(number) for number in range(1, 5)], "epoch": 5}, "steps into epoch 5"),
        ({"epochs": [make_epoch(number) for number in range(1, 4)], "epoch": 4, "step": 1}, "1 steps into epoch 4"),
        ({"examples_evaluated": 251}, "251 test images were evaluated, of 250"),
        ({"first_step_images": 651}, "651 images were trained in 1 epochs of 650"),
        ({"steady_images": 651}, "651 images were trained in 1 epochs of 650"),
        ({"epochs": [make_epoch(1, wall_s=1e300)]}, "is not plausible"),
    ],
)
def test_check_of_progress_that_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    make_metadata().progress.check(EXTENT)
    with pytest.raises(ValueError, match=reason):
        make_metadata(**changes).progress.check(EXTENT)


DIGITS = small_digits()
NUMBERS = st.sampled_from([0, 1, 2, 3, 64, 650, 10**9, 10**30]) | st.integers(-1, 100)
SECONDS = st.sampled_from([0.0, 5e-324, 1e-9, 1.5, 1e9, 1e300, 1.797e308]) | st.floats(0, 1e10)


@given(
    epochs=st.integers(1, 4),
    step=NUMBERS,
    accuracy=st.floats(0, 1) | st.floats(),
    loss=st.none() | st.floats(),
    examples=st.none() | NUMBERS,
    seconds=SECONDS,
    images=st.tuples(NUMBERS, NUMBERS),
)
def test_accepted_progress_gives_results_that_a_report_can_hold(
    epochs: int,
    step: int,
    accuracy: float,
    loss: float | None,
    examples: int | None,
    seconds: float,
    images: tuple[int, int],
) -> None:
    one = {"train_loss": loss, "test_loss": loss, "test_accuracy_ratio": accuracy, "wall_s": seconds}
    content = {
        "epoch": epochs + 1,
        "step": step,
        "epochs": [one | {"epoch": number} for number in range(1, epochs + 1)],
        "examples_evaluated": examples,
        "steady_images": images[0],
        "first_step_images": images[1],
        "steady_s": seconds,
        "earlier_wall_s": seconds,
        "earlier_steady_s": seconds,
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
        progress = TrainingProgress.model_validate_json(json.dumps(content), strict=True)
        progress.check(extent_of(spec, DIGITS))
    except ValueError:
        return
    recorder = PhaseRecorder(lambda: 0.0)
    results = _results(spec, DIGITS, progress, recorder, None, memory_peak_bytes=None, peak_flop_per_s=None)
    assert len(results.epochs) == epochs


def test_differences_name_both_values() -> None:
    assert differences({"seed": "1", "same": "x"}, {"seed": "2", "same": "x", "device": "cpu"}) == (
        "device is missing there and cpu here; seed is 1 there and 2 here"
    )
    many = {f"field_{number:02d}": "x" for number in range(MAX_DIFFERENCES + 5)}
    text = differences(many, {})
    assert text.endswith("; and 5 more")
    assert text.count(" there and missing here") == MAX_DIFFERENCES
