"""Writes a comparison's files: all of them or none, so that a folder never mixes two comparisons."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
from typing import TYPE_CHECKING, Final

from jobs.comparison.output.csv import csv_lines
from jobs.errors import NotWritable
from jobs.io.atomic_file import pending_file, sync_folder
from jobs.io.file_lock import try_lock
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from jobs.comparison.schema import Comparison
    from jobs.io.atomic_file import PendingFile

NAMES: Final = ("comparison.json", "comparison.md", "comparison.html", "runs.csv")
_LIST_PER_RUN: Final = re.compile(r'^(?P<margin> *)"(?:runs|observations)": \[(?=\])', re.MULTILINE)
_STOPS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def output_files(folder: Path) -> tuple[Path, ...]:
    """Where :func:`write` puts the comparison."""
    return tuple(folder / name for name in NAMES)


def check_outputs(folder: Path) -> None:
    """Check that :func:`write` can create or replace its files in ``folder``.

    Raises:
        NotWritable: ``folder`` is none, or a folder, a device or a pipe has the name of one of the files, also of one
            that is moved away. A link is replaced; its target is unchanged.
    """
    with contextlib.suppress(OSError):
        if folder.exists() and not folder.is_dir():
            raise NotWritable(
                f"output folder {escape_control_chars(str(folder))!r} is no folder; choose another with --output-dir"
            )
    for path in (name for file in output_files(folder) for name in (file, _backup(file))):
        try:
            mode = path.lstat().st_mode
        except OSError:
            # The file is missing, or cannot be read; then writing reports the error.
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise NotWritable(
                f"output file {escape_control_chars(str(path))!r} cannot be written: it is {kind}; "
                "choose another folder with --output-dir, or move it away"
            )


def write(comparison: Comparison, markdown: str, html: str, folder: Path) -> tuple[Path, ...]:
    """Write comparison.json, runs.csv, and ``markdown`` and ``html`` beside them, and return their paths.

    ``folder`` is made if missing. Earlier files are replaced only when all new ones are on the disk.

    Raises:
        NotWritable: the folder cannot be made or written to, or the disk is full.
    """
    paths = output_files(folder)

    def contents() -> Iterator[bytes | Iterable[bytes]]:
        # A generator keeps one content in memory at a time.
        yield json_pieces(comparison)
        yield from (markdown.encode(), html.encode())
        yield (line.encode() for line in csv_lines(comparison))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unfinished:
            pending = [unfinished.enter_context(pending_file(content, folder, "comparison")) for content in contents()]
            check_outputs(folder)
            with _exclusive(folder):
                _replace_all(pending, paths)
        sync_folder(folder)
    except OSError as error:
        raise NotWritable(
            f"output folder {escape_control_chars(str(folder))!r} cannot be written ({error.strerror or error}); "
            "choose another with --output-dir, or fix its owner, mode or free space"
        ) from error
    return paths


def json_pieces(comparison: Comparison) -> Iterator[bytes]:
    """comparison.json in pieces: its lists with an item for each run are serialized item by item.

    In ASCII, so that control characters from reports do not reach a terminal that shows the file.
    """
    lists: list[Sequence[BaseModel]] = []
    text = comparison.model_dump_json(indent=2, ensure_ascii=True, context=lists) + "\n"
    end = 0
    # Inside a JSON string a quote follows a backslash, so that no text from a report matches.
    for match, items in zip(_LIST_PER_RUN.finditer(text), lists, strict=True):
        yield text[end : match.end()].encode()
        margin = "\n" + match["margin"]
        for index, item in enumerate(items):
            lines = item.model_dump_json(indent=2, ensure_ascii=True).replace("\n", f"{margin}  ")
            yield f"{',' if index else ''}{margin}  {lines}".encode()
        if items:
            yield margin.encode()
        end = match.end()
    yield text[end:].encode()


def _backup(path: Path) -> Path:
    """Where the earlier file of ``path`` is while the new ones get their names."""
    return path.with_name(f".{path.name}.old")


def _replace_all(pending: Sequence[PendingFile], paths: Sequence[Path]) -> None:
    """Give every pending file its path, or on an error restore the earlier files.

    The earlier files are moved away before the first new one is named. A merge that is killed in between leaves an
    incomplete comparison, never a mixture of two; the next merge removes what is left.
    """
    backups = {path: _backup(path) for path in paths}
    moved: list[Path] = []
    named: list[Path] = []
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.replace(backups[path])
                moved.append(path)
        for file, path in zip(pending, paths, strict=True):
            file.link(path)
            named.append(path)
    except OSError:
        for path in named:
            path.unlink()
        for path in moved:
            backups[path].replace(path)
        raise
    for backup in backups.values():
        backup.unlink(missing_ok=True)


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other merges, and block signals that would stop this one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not try_lock(descriptor):
            raise NotWritable(
                f"output folder {escape_control_chars(str(folder))!r} is being written by another merge; "
                "merge again, or choose another with --output-dir"
            )
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        os.close(descriptor)
