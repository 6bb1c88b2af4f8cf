"""Finds the report files of a folder and reads them, in several processes if there are many."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.parse import InvalidReport, parse, read_file
from jobs.comparison.input.run_summary import ReportLocation, RunSummary, summarize
from jobs.io.cpus import usable_cpus
from jobs.io.stdio import escape_control_chars
from jobs.report.started import STARTED_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from jobs.comparison.input.report_collection import ReportCollection

READ_SUFFIXES: Final = (".json", ".log", STARTED_SUFFIX)
"""Files with other suffixes are not read from folders."""

_SIMILAR_SUFFIXES: Final = frozenset(
    {"json", "json~", "jsonl", "ndjson", "log", "log~", "started"}
    | {"7z", "br", "bz2", "gz", "lz4", "tar", "tgz", "xz", "z", "zip", "zst"}
)
"""Parts of file names of compressed, rotated or otherwise named reports and logs, in lower case."""

PARALLEL_THRESHOLD: Final = 1000
"""Minimum files for parallel reading; fewer take less time than starting the processes."""

CHUNK: Final = 100
"""Files that a process reads before it sends their runs."""

MAX_WORKERS: Final = 8


def report_files(folder: Path, collection: ReportCollection, leave_out: Iterable[Path]) -> Iterator[str]:
    """The regular files below ``folder`` that are named like a report or a log, except hidden ones.

    ``leave_out`` names files to exclude. Files that resemble reports but are not read are noted in ``collection``.
    """
    excluded = {_resolve_folder(path) for path in leave_out}
    excluded_names = {path.name for path in excluded}
    # Not recursive: folders may be nested deeper than Python's stack.
    pending = [str(folder)]
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(parent) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            collection.skip(escape_control_chars(parent), f"cannot be read ({error.strerror or error})")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name in excluded_names and _resolve_folder(Path(entry.path)) in excluded:
                continue
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
            except OSError as error:
                # On volumes that do not list types, a folder without search permission.
                collection.skip(escape_control_chars(entry.path), f"cannot be read ({error.strerror or error})")
                continue
            if is_folder:
                pending.append(entry.path)
            elif _is_readable(entry, collection):
                yield entry.path


def _resolve_folder(path: Path) -> Path:
    """``path`` with its folder resolved; if ``path`` itself is a link, it is not followed."""
    try:
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError):
        # A relative path in a working folder that was removed, or links that form a loop.
        return path


def _is_readable(entry: os.DirEntry[str], collection: ReportCollection) -> bool:
    """Whether ``entry`` is a regular file with the right suffix; similar files are noted in ``collection``."""
    source = escape_control_chars(entry.path)
    mode = _mode(entry)
    if stat.S_ISDIR(mode):
        collection.skip(source, "a link to a folder is not followed")
        return False
    if not entry.name.endswith(READ_SUFFIXES):
        if not _SIMILAR_SUFFIXES.isdisjoint(entry.name.lower().split(".")[1:]):
            collection.ignore(source)
        return False
    if not stat.S_ISREG(mode):
        collection.skip(source, "not a regular file")
        return False
    return True


def _mode(entry: os.DirEntry[str]) -> int:
    """The mode of a file or a link's target; 0 if it cannot be read."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def read_report(path: str) -> RunSummary:
    """The run in a report file.

    Raises:
        InvalidReport: the file cannot be read or is no report.
    """
    source = escape_control_chars(path)
    raw = read_file(path, origin=source)
    return summarize(parse(raw, origin=source), source=source, location=ReportLocation.of(raw, path=path))


def read_reports(paths: Sequence[str]) -> Iterator[RunSummary | InvalidReport]:
    """The run in each of ``paths`` in their order, or why it has none; many are read by several processes."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    # On macOS a fork is not safe.
    parallel = len(paths) >= PARALLEL_THRESHOLD and sys.platform != "darwin"
    count = min(usable_cpus(), MAX_WORKERS) if parallel else 0
    # Worker i reads every chunk whose number is i modulo count.
    workers: list[_Worker] = []
    try:
        for first in range(count) if count > 1 else ():
            workers.append(_Worker(chunks[first::count], workers))
        for number, chunk in enumerate(chunks):
            runs = workers[number % count].receive() if workers else None
            yield from _read_chunk(chunk) if runs is None else runs
    finally:
        for worker in workers:
            worker.stop()


def _read_chunk(paths: Sequence[str]) -> list[RunSummary | InvalidReport]:
    runs: list[RunSummary | InvalidReport] = []
    for path in paths:
        try:
            runs.append(read_report(path))
        except InvalidReport as error:
            # Without its traceback, which would keep the file's content.
            runs.append(InvalidReport(str(error)))
    return runs


class _Worker:
    """A process that reads chunks of files. It is forked, so that nothing is imported again.

    The fork is safe, since no framework is loaded and no thread runs.
    """

    def __init__(self, chunks: Sequence[Sequence[str]], earlier: Sequence[_Worker]) -> None:
        self.receiver: Connection | None = None
        with suppress(OSError):
            # OSError: no more processes or file descriptors. This process then reads the chunks itself.
            context = multiprocessing.get_context("fork")
            self.receiver, sender = context.Pipe(duplex=False)
            inherited = [worker.receiver for worker in (*earlier, self) if worker.receiver is not None]
            with sender:
                self._process = context.Process(target=_send_chunks, args=(chunks, sender, inherited), daemon=True)
                self._process.start()

    def receive(self) -> list[RunSummary | InvalidReport] | None:
        """The next chunk's runs; ``None`` if the worker did not start or was killed."""
        if self.receiver is not None:
            with suppress(EOFError, OSError):
                return self.receiver.recv()  # type: ignore[no-any-return]
        return None

    def stop(self) -> None:
        if self.receiver is not None:
            if self._process.pid is not None:
                self._process.kill()
                self._process.join()
            self.receiver.close()


def _send_chunks(chunks: Sequence[Sequence[str]], sender: Connection, inherited: Sequence[Connection]) -> None:
    """Send the runs of each chunk, until the parent process ends.

    While any process holds a pipe's receiving end, sending into the pipe waits instead of failing.
    """
    for receiver in inherited:
        receiver.close()
    # Ctrl-C reaches this process as well; the parent process stops it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        for chunk in chunks:
            sender.send(_read_chunk(chunk))
