"""Writes a comparison's files: each whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.comparison.text import visible
from jobs.errors import NotWritable

if TYPE_CHECKING:
    from jobs.comparison.model import Comparison

JSON_NAME: Final = "comparison.json"
MARKDOWN_NAME: Final = "comparison.md"


def output_files(folder: Path) -> tuple[Path, Path]:
    """Where :func:`write` puts the comparison."""
    return folder / JSON_NAME, folder / MARKDOWN_NAME


def write(comparison: Comparison, markdown: str, folder: Path) -> tuple[Path, Path]:
    """Write comparison.json and, holding ``markdown``, comparison.md, and return their paths.

    ``folder`` is made if missing. Earlier files are replaced, and only when both new ones are wholly on the disk.

    Raises:
        NotWritable: the folder cannot be made or written to, or the disk is full.
    """
    texts = (comparison.model_dump_json(indent=2) + "\n", markdown)
    paths = output_files(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unfinished:
            parts = [_write_part(text, folder, unfinished) for text in texts]
            for part, path in zip(parts, paths, strict=True):
                part.replace(path)
        _sync(folder)
    except OSError as error:
        raise NotWritable(
            f"output folder {visible(str(folder))!r} cannot be written ({error.strerror or error}); "
            "choose another with --output-dir, or fix its owner, mode or free space"
        ) from error
    return paths


def _write_part(text: str, folder: Path, unfinished: contextlib.ExitStack) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".comparison.", suffix=".part", dir=folder)
    part = Path(name)
    unfinished.callback(part.unlink, missing_ok=True)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    # mkstemp makes the file 0600; a comparison is for whoever may read the folder.
    part.chmod(0o644)
    return part


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
