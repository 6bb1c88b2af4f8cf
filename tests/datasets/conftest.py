from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs.datasets import idx
from jobs.datasets.idx import IDX_FILES, MNIST_SHA256

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("MNIST_DATA_DIR", "MNIST_MIRRORS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MNIST_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def small_files() -> dict[str, bytes]:
    """Four small files that fit together, by stem."""
    rng = np.random.default_rng(1)
    values = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.arange(30, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
    }
    return {stem: idx.header(array.shape) + array.tobytes() for stem, array in values.items()}


@pytest.fixture
def small_folder(tmp_path: Path, small_files: dict[str, bytes]) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    for stem, content in small_files.items():
        (folder / stem).write_bytes(content)
    return folder


@pytest.fixture
def small_mnist(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small set, declared to be MNIST; gz files."""
    for spec in IDX_FILES:
        raw = small_folder / spec.stem
        monkeypatch.setitem(MNIST_SHA256, spec.stem, idx.content_sha256(raw))
        (small_folder / f"{spec.stem}.gz").write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    return small_folder
