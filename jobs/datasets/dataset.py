"""The dataset type that the trainers use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jobs.datasets.idx import IdxFile


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset:
    """Images uint8 (n, 28, 28), labels uint8 (n,) with values 0…9; C-contiguous and read-only.

    ``sha256`` identifies the data. ``location`` is for messages.
    """

    name: str
    sha256: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    location: str
    files: tuple[IdxFile, ...]

    @classmethod
    def from_files(cls, files: Sequence[IdxFile], *, name: str, location: str) -> Self:
        """Make a set of its four files, in the order of :data:`~jobs.datasets.idx.IDX_FILES`.

        The set's hash is the SHA-256 of the files' content hashes, as hexadecimal text, joined in this order.
        """
        train_images, train_labels, test_images, test_labels = (file.values for file in files)
        return cls(
            name=name,
            sha256=hashlib.sha256("".join(file.sha256 for file in files).encode("ascii")).hexdigest(),
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            location=location,
            files=tuple(files),
        )
