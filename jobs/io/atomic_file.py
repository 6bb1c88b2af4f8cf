"""Files that are there whole or not at all, also after a crash: written without a name, then given theirs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from typing import TYPE_CHECKING, Final

from jobs.errors import NotWritable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODE: Final = 0o644
"""What a job writes is for whoever may read the folder."""


_HIDDEN: Final = re.compile(r"\..+\.[0-9a-f]{16}\.mnist-jobs\.part", re.DOTALL)
_STEM_BYTES: Final = 100
"""A hidden name has to be allowed wherever the right one is."""


class PendingFile:
    """A file's content, whole and safe on the disk of its folder, that waits for its name.

    It has none where the system knows nameless files, so that a program killed now leaves nothing behind; elsewhere,
    and for the moment in which it takes another file's place, it has a hidden one. A hidden file is locked for as long
    as its writer lives, by which the next writer in the folder knows what to remove.
    """

    def __init__(self, content: bytes, folder: Path, stem: str) -> None:
        self._content = content
        self._folder = folder
        self._stem = os.fsdecode(os.fsencode(stem)[:_STEM_BYTES])
        self._hidden: Path | None = None
        _remove_left_behind(folder)
        self._descriptor = _open_tmpfile(folder)
        if self._descriptor is None:
            self._write_hidden()
            return
        try:
            _lock(self._descriptor)
            _write(self._descriptor, content)
        except OSError:
            self._let_go()
            raise

    def link(self, path: Path) -> None:
        """Name the file ``path``, in the folder it was made for.

        Raises:
            FileExistsError: the name is taken; what has it stays.
        """
        if self._hidden is None:
            try:
                self._link_nameless(path)
            except FileExistsError:
                raise
            except OSError:
                self._write_hidden()
            else:
                return
        assert self._hidden is not None
        _link_or_move(self._hidden, path)

    def replace(self, path: Path) -> None:
        """Name the file ``path``, in place of what has that name."""
        if self._hidden is None:
            try:
                with contextlib.suppress(FileExistsError):
                    self._link_nameless(path)
                    return
                # Whole already: it bears its hidden name for as long as it takes to give it the right one.
                hidden = self._hidden_name()
                self._link_nameless(hidden)
                self._hidden = hidden
            except OSError:
                self._write_hidden()
        assert self._hidden is not None
        self._hidden.replace(path)

    def close(self) -> None:
        """Let go of what was given no name."""
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _hidden_name(self) -> Path:
        return self._folder / f".{self._stem}.{secrets.token_hex(8)}.mnist-jobs.part"

    def _write_hidden(self) -> None:
        self._let_go()
        while self._hidden is None:
            hidden = self._hidden_name()
            self._descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
            try:
                # Before it was locked, another writer may have taken it for left behind; then it needs another name.
                if _lock(self._descriptor) and os.fstat(self._descriptor).st_nlink:
                    _write(self._descriptor, self._content)
                    self._hidden = hidden
            finally:
                if self._hidden is None:
                    hidden.unlink(missing_ok=True)
                    self._let_go()

    def _link_nameless(self, path: Path) -> None:
        # Only with a folder's descriptor does Python call linkat, which follows the link in /proc to the file itself.
        descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(str(self._descriptor), path, src_dir_fd=descriptors, follow_symlinks=True)
        finally:
            os.close(descriptors)


@contextlib.contextmanager
def pending_file(content: bytes, folder: Path, stem: str) -> Iterator[PendingFile]:
    """Write ``content`` to the volume of ``folder``; ``link`` or ``replace`` of the result gives it its name.

    Raises:
        OSError: the folder is missing or not writable, or its disk is full.
    """
    part = PendingFile(content, folder, stem)
    try:
        yield part
    finally:
        part.close()


def sync_folder(folder: Path) -> None:
    """Bring the folder's own list of files to the disk, without which a new name may be lost in a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network volumes know no such thing; the file is there all the same.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def check_writable(folder: Path, *, kind: str = "report", option: str = "--report-dir") -> None:
    """Check before a long run that its results can be saved in ``folder``, which is made if missing.

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


def _open_tmpfile(folder: Path) -> int | None:
    """A descriptor of a file that has no name, or ``None`` where that is not to be had."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, MODE)
    except OSError:
        # The hidden file's own error is the one to show.
        return None


def _lock(descriptor: int) -> bool:
    """Hold the file for as long as it is open; ``False`` where another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # On a volume without locks nobody can take the file for left behind.
        return True
    return True


def _remove_left_behind(folder: Path) -> None:
    """Remove the hidden files of writers that were killed: those that nobody holds."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if _HIDDEN.fullmatch(path.name)]:
            # Another's file, or one that is gone by now, is left alone.
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        path.unlink()
                finally:
                    os.close(descriptor)


def _link_or_move(hidden: Path, path: Path) -> None:
    try:
        # A link, unlike a rename, fails where the name is taken: two writers can never replace each other.
        os.link(hidden, path)
    except FileExistsError:
        raise
    except OSError:
        # Some volumes know no links. There the name is taken first, empty, and then replaced by its owner.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            hidden.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fchmod(descriptor, MODE)
    os.fsync(descriptor)
