"""Loads MNIST from the folder in ``MNIST_DATA_DIR``, else from the cache, else from a mirror into the cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import platformdirs

from jobs.datasets import idx
from jobs.datasets.folder import expand_user, find_files, is_folder, load_folder
from jobs.datasets.idx import IDX_FILES, MNIST_SHA256, IdxFileSpec
from jobs.errors import DatasetRefused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.datasets.dataset import ImageDataset

DATA_DIR_VARIABLE: Final = "MNIST_DATA_DIR"
CACHE_DIR_VARIABLE: Final = "MNIST_CACHE_DIR"


def load_mnist(on_progress: Callable[[str], None] | None = None) -> ImageDataset:
    """MNIST, verified by content.

    ``MNIST_DATA_DIR``, where set, must hold it: no other copy is used in its place. Otherwise the cache folder is
    used, and what is missing or damaged there is downloaded.

    Raises:
        DatasetRefused: the named folder does not hold MNIST, or it could not be downloaded.
    """
    data_dir = os.environ.get(DATA_DIR_VARIABLE)
    if data_dir:
        try:
            return load_folder(expand_user(data_dir), require_mnist=True)
        except DatasetRefused as error:
            raise DatasetRefused(f"{DATA_DIR_VARIABLE} is set, but {error}") from error
    cache_dir = os.environ.get(CACHE_DIR_VARIABLE)
    cache = expand_user(cache_dir) if cache_dir else platformdirs.user_cache_path("mnist-jobs") / "mnist"
    try:
        return load_folder(cache, require_mnist=True)
    except DatasetRefused:
        _complete(cache, on_progress)
        return load_folder(cache, require_mnist=True)


def _complete(cache: Path, on_progress: Callable[[str], None] | None) -> None:
    """Remove the cache's damaged files and download those that are missing."""
    missing: list[IdxFileSpec] = []
    for spec in IDX_FILES:
        paths = find_files(cache, spec) if is_folder(cache) else []
        damaged = [path for path in paths if not _is_valid(path, spec)]
        for path in damaged:
            _remove(path)
        if len(damaged) == len(paths):
            missing.append(spec)
    if missing:
        # Imported late, since it imports the HTTP client.
        from jobs.datasets.download import download  # noqa: PLC0415

        download(missing, cache, on_progress)


def _is_valid(path: Path, spec: IdxFileSpec) -> bool:
    try:
        return idx.content_sha256(path) == MNIST_SHA256[spec.stem]
    except DatasetRefused:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise DatasetRefused(
            f"{idx.printable_path(path)}: expected MNIST, found other content, and it cannot be removed "
            f"({error.strerror}); remove it, or set {CACHE_DIR_VARIABLE} to another folder"
        ) from error
