"""How a download shows itself: a bar on a terminal, a line otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from collections.abc import Callable


class DownloadProgress(Protocol):
    """What pooch asks of a progress bar: ``total`` is set first, in bytes, 0 where the server does not say."""

    total: int

    def update(self, size: int) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Bar:
    """A bar on standard error."""

    total = 0

    def __init__(self, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(title, total=None)
        self._progress.start()

    def update(self, size: int) -> None:
        self._progress.update(self._task, total=self.total or None, advance=size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()


class Line:
    """One line for a whole file, to standard error or to who asked for it."""

    total = 0

    def __init__(self, title: str, write: Callable[[str], None] | None = None) -> None:
        (write or _to_stderr)(title)

    def update(self, size: int) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def progress_for(title: str, on_progress: Callable[[str], None] | None) -> DownloadProgress:
    """Lines to ``on_progress`` where given; else a bar where standard error is a terminal, else lines there."""
    if on_progress is None and sys.stderr.isatty():
        return Bar(title)
    return Line(title, on_progress)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the program's progress
