"""Standard output and error: what may reach a terminal, and what to do where they cannot be written."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from rich.console import Console

from jobs.errors import NotWritable

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class LastingConsole(Console):
    """Falls silent where whoever read it has left; rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def visible(text: str) -> str:
    """``text`` on one line, with every control, format and line-breaking character written as its escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def unprintable(error: OSError) -> NotWritable | None:
    """What a person is told where ``error`` came of printing; files are written elsewhere, and named."""
    if error.filename is not None or error.errno not in _NO_ROOM:
        return None
    return NotWritable(f"standard output cannot be written ({error.strerror}); free space there or send it elsewhere")


def settle_streams() -> None:
    """Write out what is left of both streams, and let go of one that cannot be written.

    Python would try again at its end, complain, and turn the exit code into 120.
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
