"""Writes a comparison's files: each whole or not at all, and never those of two comparisons beside each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
from typing import TYPE_CHECKING, Final

from jobs.comparison.output.csv import runs_csv
from jobs.errors import NotWritable
from jobs.io.atomic_file import pending_file, sync_folder
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jobs.comparison.schema import Comparison
    from jobs.io.atomic_file import PendingFile

JSON_NAME: Final = "comparison.json"
MARKDOWN_NAME: Final = "comparison.md"
HTML_NAME: Final = "comparison.html"
CSV_NAME: Final = "runs.csv"

_STOPS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def output_files(folder: Path) -> tuple[Path, ...]:
    """Where :func:`write` puts the comparison."""
    return folder / JSON_NAME, folder / MARKDOWN_NAME, folder / HTML_NAME, folder / CSV_NAME


def check_outputs(folder: Path) -> None:
    """Refuse a folder in which something else has the name of a file that :func:`write` makes.

    Raises:
        NotWritable: a folder, a device or a pipe has it. A link is replaced, and what it leads to stays as it is.
    """
    for path in output_files(folder):
        try:
            mode = path.lstat().st_mode
        except OSError:
            # Not there, or not to be had: writing says which.
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise NotWritable(
                f"output file {escape_control_chars(str(path))!r} cannot be written: it is {kind}; "
                "choose another folder with --output-dir, or move it away"
            )


def write(comparison: Comparison, markdown: str, html: str, folder: Path) -> tuple[Path, ...]:
    """Write comparison.json, runs.csv, and ``markdown`` and ``html`` beside them, and return their paths.

    ``folder`` is made if missing. Earlier files are replaced, and only when all new ones are wholly on the disk.

    Raises:
        NotWritable: the folder cannot be made or written to, or the disk is full.
    """
    paths = output_files(folder)

    def texts() -> Iterator[str]:
        # One at a time in memory. ASCII, since who prints the file to a terminal would else print what reports brought.
        yield comparison.model_dump_json(indent=2, ensure_ascii=True) + "\n"
        yield from (markdown, html)
        yield runs_csv(comparison)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unfinished:
            parts = [unfinished.enter_context(pending_file(text.encode(), folder, "comparison")) for text in texts()]
            check_outputs(folder)
            with _undisturbed(folder):
                _swap(parts, paths)
        sync_folder(folder)
    except OSError as error:
        raise NotWritable(
            f"output folder {escape_control_chars(str(folder))!r} cannot be written ({error.strerror or error}); "
            "choose another with --output-dir, or fix its owner, mode or free space"
        ) from error
    return paths


def _swap(parts: Sequence[PendingFile], paths: Sequence[Path]) -> None:
    """Give ``parts`` their names in ``paths``, and take what has them now away: all of it, or nothing.

    The earlier files step aside before the first new one comes: whoever is killed in between leaves an incomplete
    comparison, and never a mixture of two. What is left aside then goes with the next comparison.
    """
    aside = {path: path.with_name(f".{path.name}.old") for path in paths}
    moved: list[Path] = []
    named: list[Path] = []
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.replace(aside[path])
                moved.append(path)
        for part, path in zip(parts, paths, strict=True):
            part.link(path)
            named.append(path)
    except OSError:
        for path in named:
            path.unlink()
        for path in moved:
            aside[path].replace(path)
        raise
    for old in aside.values():
        old.unlink(missing_ok=True)


@contextlib.contextmanager
def _undisturbed(folder: Path) -> Iterator[None]:
    """Inside, no other merge names files in ``folder``, and a signal to stop waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, folder)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NotWritable(
            f"output folder {escape_control_chars(str(folder))!r} is being written by another merge; "
            "merge again, or choose another with --output-dir"
        ) from error
    except OSError:
        # Some network volumes know no locks.
        return
