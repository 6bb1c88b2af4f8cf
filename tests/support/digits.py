"""Small data sets that can be learned, for tests that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jobs.datasets import ImageDataset
from jobs.datasets.idx import IDX_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def small_digits(train: int = 650, test: int = 250) -> ImageDataset:
    """Ten classes of noisy bars; 650 images make ten full batches of 64 and a short one."""
    train_images, train_labels = _draw(train, seed=1)
    test_images, test_labels = _draw(test, seed=2)
    return ImageDataset(
        name="bars",
        sha256="0" * 64,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        location="drawn by a test",
        files=(),
    )


def write_idx_folder(folder: Path, digits: ImageDataset) -> Path:
    """Write the four raw IDX files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    for spec, array in zip(IDX_FILES, arrays, strict=True):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / spec.stem).write_bytes(header + array.tobytes())
    return folder


def _draw(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row = 2 * int(label) + 4
        image[row : row + 3, 6:22] = 220
    return images, labels
