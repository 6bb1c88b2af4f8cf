"""Reads the four IDX files of a folder as one dataset."""

from __future__ import annotations

from pathlib import Path

from jobs.datasets import idx
from jobs.datasets.dataset import ImageDataset
from jobs.datasets.idx import FILE_NAMES_TEXT, IDX_FILES, MNIST_SHA256, IdxFile, IdxFileSpec, printable_path
from jobs.errors import DatasetRefused
from jobs.io.stdio import escape_control_chars


def load_folder(folder: Path, *, require_mnist: bool = False) -> ImageDataset:
    """Read a folder of IDX files. It is called ``mnist`` if it holds MNIST, else ``idx:`` and the folder's name.

    Raises:
        DatasetRefused: a file is missing or damaged; or some of the four are not MNIST's where others are, or where
            ``require_mnist`` is set.
    """
    files = [_read_file(folder, spec) for spec in IDX_FILES]
    for images, labels in (files[:2], files[2:]):
        _check_counts(images, labels)
    not_mnist = [file for file in files if file.sha256 != MNIST_SHA256[file.name]]
    if not_mnist and (require_mnist or len(not_mnist) < len(files)):
        raise _damaged_copy(not_mnist[0])
    name = f"idx:{escape_control_chars(folder.resolve().name)}" if not_mnist else "mnist"
    return ImageDataset.from_files(files, name=name, location=printable_path(folder))


def expand_user(path: str) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by that home folder.

    Raises:
        DatasetRefused: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DatasetRefused(f"{path!r}: there is no such user; give the whole path") from error


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; ``False`` also for a path that the system cannot look up."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def find_files(folder: Path, spec: IdxFileSpec) -> list[Path]:
    """The files of ``folder`` that have one of ``spec``'s names, raw before gz.

    Raises:
        DatasetRefused: there is no such folder, or it cannot be read.
    """
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetRefused(
            f"{printable_path(folder)}: expected a folder with the files {FILE_NAMES_TEXT}, found none that can be "
            f"read ({reason}); check the path and its permissions"
        ) from error
    return [folder / name for name in spec.file_names if name in present]


def _read_file(folder: Path, spec: IdxFileSpec) -> IdxFile:
    """The first file under ``spec``'s names. Files under its other names must have the same content."""
    paths = find_files(folder, spec)
    if not paths:
        raise DatasetRefused(
            f"{printable_path(folder)}: expected a file {' or '.join(spec.file_names)}, found none; a data set is a "
            f"folder with the four files {FILE_NAMES_TEXT}"
        )
    file = idx.read(paths[0], spec)
    for other in paths[1:]:
        if idx.content_sha256(other) != file.sha256:
            raise DatasetRefused(
                f"{printable_path(other)}: expected the content of {paths[0].name} beside it, found other content; "
                "remove the one that is not meant"
            )
    return file


def _damaged_copy(file: IdxFile) -> DatasetRefused:
    assert file.path is not None
    return DatasetRefused(
        f"{printable_path(file.path)}: expected MNIST's {file.name} (content sha256 "
        f"{MNIST_SHA256[file.name][:12]}…), found other content ({file.sha256[:12]}…): a damaged copy of MNIST; copy "
        "the file again from its source"
    )


def _check_counts(images: IdxFile, labels: IdxFile) -> None:
    assert images.path is not None
    assert labels.path is not None
    if len(images.values) != len(labels.values):
        raise DatasetRefused(
            f"{printable_path(labels.path)}: expected {len(images.values):,} labels, as many as there are images in "
            f"{images.path.name}, found {len(labels.values):,}; take both files from the same set"
        )
