"""The data a job trains on: MNIST, any folder of IDX files, or the embedded synthetic set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.datasets.dataset import ContentFile, Description, ImageDataset, describe
from jobs.datasets.folder import is_folder, load_folder
from jobs.datasets.mnist import load_mnist
from jobs.datasets.synthetic import load_synthetic
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DATASET_NAMES", "ContentFile", "Description", "ImageDataset", "describe", "load"]

DATASET_NAMES: Final = ("mnist", "synthetic")
"""What ``--dataset`` takes beside a folder."""


def load(dataset: str, *, on_progress: Callable[[str], None] | None = None) -> ImageDataset:
    """Load ``mnist``, ``synthetic`` or a folder of IDX files; a folder of one of these names is ``./mnist``.

    ``on_progress`` takes a download's lines; without it they go to standard error, as a bar on a terminal.

    Raises:
        DatasetRefused: the data is missing, damaged, not what it says, or cannot be downloaded.
        BadInput: no such data set and no such folder.
    """
    if dataset == "mnist":
        return load_mnist(on_progress)
    if dataset == "synthetic":
        return load_synthetic()
    folder = _existing_folder(dataset)
    if folder is None:
        raise BadInput(
            f"--dataset {dataset!r}: no such data set or folder; choose mnist, synthetic or a folder of IDX files"
        )
    return load_folder(folder)


def _existing_folder(dataset: str) -> Path | None:
    try:
        folder = Path(dataset).expanduser()
    except RuntimeError:
        # ~someone, and there is no such user.
        return None
    return folder if dataset and is_folder(folder) else None
