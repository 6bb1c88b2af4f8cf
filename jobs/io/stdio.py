"""Standard streams that are closed or cannot be written, and text that is safe for a terminal."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final

from jobs.errors import NotWritable

_CANNOT_STORE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def escape_control_chars(text: str) -> str:
    """``text`` on one line, with every control, format and line-breaking character written as its escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def open_streams() -> None:
    """Open streams that were closed when the program started, as by ``>&-``, on the null device.

    Otherwise the next opened file gets the stream's number, and a library that prints would write into a report.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null > number and not _is_open(number):
            os.dup2(null, number)
            os.close(null)
            null = number
        os.set_inheritable(null, True)
        setattr(sys, name, open(null, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115, PTH123


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


def stdout_error(error: OSError) -> NotWritable | None:
    """The message for an ``error`` of printing; ``None`` for others, such as one of a named file."""
    if error.filename is not None or error.errno not in _CANNOT_STORE:
        return None
    return NotWritable(f"standard output cannot be written ({error.strerror}); free space there or send it elsewhere")


def flush_stdio() -> None:
    """Flush both streams, and replace one that cannot be written by the null device.

    Otherwise Python flushes again on exit, prints an error, and changes the exit code to 120.
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
