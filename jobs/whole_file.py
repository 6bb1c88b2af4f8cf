"""Files that are there whole or not at all, also after a crash: written without a name, then given theirs."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODE: Final = 0o644
"""What a job writes is for whoever may read the folder."""


class Part:
    """A file's content, whole and safe on the disk of its folder, that waits for its name.

    It has none where the system knows nameless files, so that a program killed now leaves nothing behind; elsewhere
    it has a hidden one.
    """

    def __init__(self, content: bytes, folder: Path, stem: str) -> None:
        self._content = content
        self._hidden = folder / f".{stem}.{secrets.token_hex(4)}.part"
        self._nameless: int | None = _open_nameless(folder)
        if self._nameless is None:
            self._write_hidden()
            return
        try:
            _write(self._nameless, content)
        except OSError:
            os.close(self._nameless)
            raise

    def link(self, path: Path) -> None:
        """Name the file ``path``, in the folder it was made for.

        Raises:
            FileExistsError: the name is taken; what has it stays.
        """
        if self._nameless is not None:
            try:
                _link_nameless(self._nameless, path)
            except FileExistsError:
                raise
            except OSError:
                self._write_hidden()
            else:
                return
        _link_or_move(self._hidden, path)

    def replace(self, path: Path) -> None:
        """Name the file ``path``, in place of what has that name."""
        if self._nameless is not None:
            try:
                with contextlib.suppress(FileExistsError):
                    _link_nameless(self._nameless, path)
                    return
                # Whole already: it bears its hidden name for as long as it takes to give it the right one.
                _link_nameless(self._nameless, self._hidden)
            except OSError:
                self._write_hidden()
        self._hidden.replace(path)

    def close(self) -> None:
        """Let go of what was given no name."""
        self._hidden.unlink(missing_ok=True)
        if self._nameless is not None:
            os.close(self._nameless)
            self._nameless = None

    def _write_hidden(self) -> None:
        descriptor = os.open(self._hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
        if self._nameless is not None:
            os.close(self._nameless)
            self._nameless = None
        try:
            _write(descriptor, self._content)
        except OSError:
            self._hidden.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def part_file(content: bytes, folder: Path, stem: str) -> Iterator[Part]:
    """``content`` written to ``folder``'s volume; :meth:`Part.link` or :meth:`Part.replace` gives it its name.

    Raises:
        OSError: the folder is missing or not writable, or its disk is full.
    """
    part = Part(content, folder, stem)
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


def _open_nameless(folder: Path) -> int | None:
    """A descriptor of a file that has no name, or ``None`` where that is not to be had."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, MODE)
    except OSError:
        # The hidden file's own error is the one to show.
        return None


def _link_nameless(descriptor: int, path: Path) -> None:
    # Only with a folder's descriptor does Python call linkat, which follows the link in /proc to the file itself.
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(descriptor), path, src_dir_fd=descriptors, follow_symlinks=True)
    finally:
        os.close(descriptors)


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
