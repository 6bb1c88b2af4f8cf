"""Four IDX files in a folder, read as one set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.datasets import idx
from jobs.datasets.checksums import MNIST_SHA256
from jobs.datasets.dataset import ImageDataset, assemble
from jobs.datasets.idx_files import FILE_NAMES_TEXT, ROLES, IdxFileSpec
from jobs.errors import DatasetRefused
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.datasets.idx import IdxArray

Contents = tuple["IdxArray", "IdxArray", "IdxArray", "IdxArray"]


def load_folder(folder: Path) -> ImageDataset:
    """Any folder of IDX files: ``mnist`` if it holds MNIST, else ``idx:`` and the folder's name.

    Raises:
        DatasetRefused: a file is missing or damaged, or some of the four are MNIST's and others are not.
    """
    contents = read_folder(folder)
    wrong = _not_mnist(contents)
    if not wrong:
        name = "mnist"
    elif len(wrong) == len(ROLES):
        name = f"idx:{escape_control_chars(folder.resolve().name)}"
    else:
        raise damaged_copy(*wrong[0])
    return assemble(name=name, location=idx.shown(folder), contents=contents)


def load_mnist_folder(folder: Path) -> ImageDataset:
    """A folder that must hold MNIST.

    Raises:
        DatasetRefused: it does not.
    """
    contents = read_folder(folder)
    for role, content in _not_mnist(contents):
        raise damaged_copy(role, content)
    return assemble(name="mnist", location=idx.shown(folder), contents=contents)


def read_folder(folder: Path) -> Contents:
    """The four files' contents, each checked alone, and images counted against labels."""
    found = [find(folder, role) for role in ROLES]
    for role, paths in zip(ROLES, found, strict=True):
        if not paths:
            names = " or ".join(role.file_names)
            raise DatasetRefused(
                f"{idx.shown(folder)}: expected a file {names}, found none; a data set is a folder with the four "
                f"files {FILE_NAMES_TEXT}"
            )
    train_images, train_labels, test_images, test_labels = (
        _read_one(paths, role) for role, paths in zip(ROLES, found, strict=True)
    )
    _check_counts(train_images, train_labels)
    _check_counts(test_images, test_labels)
    return train_images, train_labels, test_images, test_labels


def _read_one(paths: list[Path], role: IdxFileSpec) -> IdxArray:
    """The first of the files under ``role``'s names; the others must hold the same, or one would be used unasked."""
    content = idx.read(paths[0], role)
    for other in paths[1:]:
        if idx.content_sha256(other) != content.sha256:
            raise DatasetRefused(
                f"{idx.shown(other)}: expected the content of {paths[0].name} beside it, found other content; "
                "remove the one that is not meant"
            )
    return content


def is_folder(path: Path) -> bool:
    """Whether there is a folder that can be seen; no path is so odd that asking fails."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def find(folder: Path, role: IdxFileSpec) -> list[Path]:
    """The files that have one of ``role``'s names in a folder, raw before gz.

    Raises:
        DatasetRefused: the folder is none or cannot be read.
    """
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetRefused(
            f"{idx.shown(folder)}: expected a folder with the files {FILE_NAMES_TEXT}, found none that can be read "
            f"({reason}); check the path and its permissions"
        ) from error
    return [folder / name for name in role.file_names if name in present]


def damaged_copy(role: IdxFileSpec, content: IdxArray) -> DatasetRefused:
    where = role.stem if content.path is None else idx.shown(content.path)
    return DatasetRefused(
        f"{where}: expected MNIST's {role.stem} (content sha256 {MNIST_SHA256[role.stem][:12]}…), found other content "
        f"({content.sha256[:12]}…): a damaged copy of MNIST; copy the file again from its source"
    )


def _not_mnist(contents: Contents) -> list[tuple[IdxFileSpec, IdxArray]]:
    return [
        (role, content)
        for role, content in zip(ROLES, contents, strict=True)
        if content.sha256 != MNIST_SHA256[role.stem]
    ]


def _check_counts(images: IdxArray, labels: IdxArray) -> None:
    if len(images.values) != len(labels.values):
        where = "labels" if labels.path is None else idx.shown(labels.path)
        beside = "the images" if images.path is None else images.path.name
        raise DatasetRefused(
            f"{where}: expected {len(images.values):,} labels, as many as there are images in {beside}, found "
            f"{len(labels.values):,}; take both files from the same set"
        )
