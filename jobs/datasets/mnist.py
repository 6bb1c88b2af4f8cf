"""Where MNIST comes from: a folder that was named, else the cache, else a mirror into the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from jobs.datasets import idx
from jobs.datasets.checksums import MNIST_SHA256
from jobs.datasets.folder import find, is_folder, load_mnist_folder
from jobs.datasets.idx_files import ROLES, IdxFileSpec
from jobs.errors import DatasetRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.datasets.dataset import ImageDataset

DATA_DIR_VARIABLE: Final = "MNIST_DATA_DIR"
CACHE_DIR_VARIABLE: Final = "MNIST_CACHE_DIR"


def load_mnist(on_progress: Callable[[str], None] | None = None) -> ImageDataset:
    """MNIST, verified by content.

    ``MNIST_DATA_DIR``, where set, must hold it: what a person named is never passed over in silence. Else the
    cache folder is used, and what is missing or damaged there is downloaded.

    Raises:
        DatasetRefused: the named folder does not hold MNIST, or it could not be downloaded.
    """
    named = os.environ.get(DATA_DIR_VARIABLE)
    if named:
        try:
            return load_mnist_folder(Path(named).expanduser())
        except DatasetRefused as error:
            raise DatasetRefused(f"{DATA_DIR_VARIABLE} is set, but {error}") from error
    cache = cache_folder()
    if not all(_cached(cache, role) for role in ROLES):
        _complete(cache, on_progress)
    try:
        return load_mnist_folder(cache)
    except DatasetRefused:
        # Damaged since it was stored, which is a cache's own affair: what is wrong is fetched again.
        _complete(cache, on_progress)
        return load_mnist_folder(cache)


def cache_folder() -> Path:
    """Where downloads are kept; it need not exist."""
    named = os.environ.get(CACHE_DIR_VARIABLE)
    if named:
        return Path(named).expanduser()
    return platformdirs.user_cache_path("mnist-jobs") / "mnist"


def _cached(cache: Path, role: IdxFileSpec) -> list[Path]:
    return find(cache, role) if is_folder(cache) else []


def _complete(cache: Path, on_progress: Callable[[str], None] | None) -> None:
    """Make the cache hold all four files, whole."""
    missing: list[IdxFileSpec] = []
    for role in ROLES:
        whole = False
        for path in _cached(cache, role):
            if _is_whole(path, role):
                whole = True
            else:
                _remove(path)
        if not whole:
            missing.append(role)
    if missing:
        # Brings in the HTTP client, which a run with its data at hand does not need.
        from jobs.datasets.download import download  # noqa: PLC0415

        download(missing, cache, on_progress)


def _is_whole(path: Path, role: IdxFileSpec) -> bool:
    try:
        return idx.content_sha256(path) == MNIST_SHA256[role.stem]
    except DatasetRefused:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise DatasetRefused(
            f"{idx.shown(path)}: expected MNIST, found other content, and it cannot be removed "
            f"({error.strerror}); remove it, or set {CACHE_DIR_VARIABLE} to another folder"
        ) from error
