"""Files that are there whole or not at all, also after a crash: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def part_file(content: bytes, folder: Path, stem: str) -> Iterator[Path]:
    """A hidden file in ``folder`` that holds ``content`` and is safe on the disk; move or link it into its place.

    It is removed at the end unless it was moved. Its mode is 0644: what a job writes is for whoever may read the
    folder.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=".part", dir=folder)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the folder's own list of files to the disk, without which a new name may be lost in a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
