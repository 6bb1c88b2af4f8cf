"""Standard streams that are closed or cannot be written, and what may reach a terminal."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from rich.console import Console

from jobs.errors import NotWritable

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class PipeSafeConsole(Console):
    """Falls silent where whoever read it has left; rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def escape_control_chars(text: str) -> str:
    """``text`` on one line, with every control, format and line-breaking character written as its escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def open_streams() -> None:
    """Open what was closed when the program started, as by ``>&-``, on the null device.

    Python has ``None`` in its place, and the next file to be opened would get its number: a library that prints would
    write into a report.
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
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def stdout_error(error: OSError) -> NotWritable | None:
    """What a person is told where ``error`` came of printing; files are written elsewhere, and named."""
    if error.filename is not None or error.errno not in _NO_ROOM:
        return None
    return NotWritable(f"standard output cannot be written ({error.strerror}); free space there or send it elsewhere")


def flush_stdio() -> None:
    """Write out what is left of both streams, and let go of one that cannot be written.

    Python would try again at its end, complain, and turn the exit code into 120.
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
