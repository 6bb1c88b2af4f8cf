"""The data a job trains on: MNIST, any folder of IDX files, or the embedded synthetic digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.datasets.dataset import ImageDataset
from jobs.datasets.folder import expand_user, is_folder, load_folder
from jobs.datasets.mnist import load_mnist
from jobs.datasets.synthetic import load_synthetic
from jobs.errors import BadInput, DatasetRefused

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ImageDataset", "load"]


def load(dataset: str, *, on_progress: Callable[[str], None] | None = None) -> ImageDataset:
    """Load ``mnist``, ``synthetic`` or a folder of IDX files (for a folder of that name: ``./mnist``).

    ``on_progress`` receives a download's lines. Without it they go to standard error, on a terminal as a bar.

    Raises:
        DatasetRefused: the data is missing, damaged, not what its name says, or cannot be downloaded.
        BadInput: there is no such data set and no such folder.
    """
    if dataset == "mnist":
        return load_mnist(on_progress)
    if dataset == "synthetic":
        return load_synthetic()
    try:
        folder = expand_user(dataset)
    except DatasetRefused:
        folder = None
    if not dataset or folder is None or not is_folder(folder):
        raise BadInput(
            f"--dataset {dataset!r}: no such data set or folder; choose mnist, synthetic or a folder of IDX files"
        )
    return load_folder(folder)
