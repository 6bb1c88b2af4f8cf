"""Atomic writes: a file is complete or absent, also after a crash. It is written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.errors import NotWritable
from jobs.io.file_lock import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MODE: Final = 0o644
"""A job's files can be read by everyone who can read the folder."""

_HIDDEN_NAME: Final = re.compile(r"\..+\.[0-9a-f]{16}\.mnist-jobs\.part", re.DOTALL)
_MAX_STEM_BYTES: Final = 100
"""Keeps the hidden name within the system's limit."""


@dataclass(frozen=True)
class PendingFile:
    """A file that is complete and on the disk, under a hidden name in the folder of its final name."""

    hidden: Path

    def link(self, path: Path) -> None:
        """Name the file ``path``.

        Raises:
            FileExistsError: the name is taken; the file that has it stays.
        """
        try:
            # Unlike a rename, a link fails where the name is taken, so two writers never replace each other's file.
            os.link(self.hidden, path)
        except FileExistsError:
            raise
        except OSError:
            # Some volumes have no links. There an empty file takes the name first, and is then replaced.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                self.hidden.replace(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise

    def replace(self, path: Path) -> None:
        """Name the file ``path``, in place of the file that has that name."""
        self.hidden.replace(path)


@contextlib.contextmanager
def pending_file(content: bytes | Iterable[bytes], folder: Path, stem: str) -> Iterator[PendingFile]:
    """Write ``content``, in one or more pieces, into ``folder``; ``link`` or ``replace`` of the result names the file.

    The hidden file is locked while its writer runs. If the writer is killed, the next writer in the folder removes
    the unlocked file.

    Raises:
        OSError: the folder is missing or not writable, or its disk is full.
    """
    _remove_abandoned(folder)
    hidden, descriptor = _create_locked(folder, os.fsdecode(os.fsencode(stem)[:_MAX_STEM_BYTES]))
    try:
        _write(descriptor, content)
        yield PendingFile(hidden)
    finally:
        os.close(descriptor)
        hidden.unlink(missing_ok=True)


def write_file(content: bytes, path: Path) -> None:
    """Write ``path``, whole or not at all, in place of the file that has that name.

    Raises:
        OSError: the folder is missing or not writable, or its disk is full.
    """
    with pending_file(content, path.parent, path.stem) as file:
        file.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the folder's entries to the disk; without this a crash may lose a new name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network volumes cannot sync a folder.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def check_writable(folder: Path, *, kind: str = "report", option: str = "--report-dir") -> None:
    """Check before a long run that its results can be saved in ``folder``, which is created if missing.

    Raises:
        NotWritable: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
    except OSError as error:
        raise NotWritable(
            f"{kind} folder {str(folder)!r} cannot be written ({error.strerror or error}); "
            f"choose another with {option}, or fix its owner, mode or free space"
        ) from error


def _create_locked(folder: Path, stem: str) -> tuple[Path, int]:
    while True:
        hidden = folder / f".{stem}.{secrets.token_hex(8)}.mnist-jobs.part"
        descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
        # Another writer may have removed the file as abandoned before it was locked.
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return hidden, descriptor
        os.close(descriptor)


def _write(descriptor: int, content: bytes | Iterable[bytes]) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as stream:
        stream.writelines([content] if isinstance(content, bytes) else content)
    # Volumes without modes, as of CIFS or of object storage, refuse it; there the mode is the mount's.
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, MODE)
    os.fsync(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove the hidden files that no writer has locked."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if _HIDDEN_NAME.fullmatch(path.name)]:
            # A file that is locked, not ours, or gone by now is left alone.
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        path.unlink()
                finally:
                    os.close(descriptor)
