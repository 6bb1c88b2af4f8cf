from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.errors import BadInput, NotWritable
from jobs.recipes import LENET
from jobs.training.seeding import initial_weights
from jobs.weights_file import read_weights_file, write_weights_file

if TYPE_CHECKING:
    from pathlib import Path


def _write(folder: Path, dtype: str = "float64") -> Path:
    return write_weights_file(folder, run_id="run-1", recipe=LENET, weights=initial_weights(LENET, 1), dtype=dtype)


def test_weights_file_round_trip_is_exact(tmp_path: Path) -> None:
    trained = read_weights_file(_write(tmp_path / "new"))
    assert trained.recipe is LENET
    assert trained.run_id == "run-1"
    for name, array in initial_weights(LENET, 1).items():
        assert (trained.weights[name] == array).all()


def test_weights_file_is_written_in_the_dtype_of_training(tmp_path: Path) -> None:
    trained = read_weights_file(_write(tmp_path, "float32"))
    expected = initial_weights(LENET, 1)["conv1.kernel"].astype(np.float32)
    assert (trained.weights["conv1.kernel"] == expected).all()


def test_weights_file_is_the_only_file_in_the_folder(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_read_weights_file_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no weights file .*absent"):
        read_weights_file(tmp_path / "absent.safetensors")


def test_read_weights_file_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "run"), "w"))

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="is no complete safetensors file"):
        read_weights_file(path)
    assert not (tmp_path / "run").exists()


def test_read_weights_file_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(BadInput, match="was not written by"):
        read_weights_file(path)


def test_read_weights_file_missing_weights_is_refused(tmp_path: Path) -> None:
    weights = initial_weights(LENET, 1)
    del weights["conv1.bias"]
    path = write_weights_file(tmp_path, run_id="run-1", recipe=LENET, weights=weights, dtype="float32")
    with pytest.raises(BadInput, match="does not hold the weights of lenet"):
        read_weights_file(path)


def test_write_weights_file_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="choose another --export-dir"):
        _write(tmp_path / "file" / "weights")
