"""Reads many report files at once, in as many processes as there are cores; few are not worth starting any for."""

from __future__ import annotations

from collections import deque
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.parse import InvalidReport, parse, read_file
from jobs.comparison.input.run_summary import Reducer, ReportLocation, RunSummary
from jobs.comparison.process_pool import start_workers
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future, ProcessPoolExecutor
    from pathlib import Path

Read = RunSummary | InvalidReport
"""A file's run, or why it has none."""

PARALLEL_THRESHOLD: Final = 1000
"""Files that take longer to read than two processes to start."""
CHUNK: Final = 200
"""Files a worker reads before it hands over: of the runs in it, what they have in common crosses once."""


def read_report(path: Path, reducer: Reducer) -> RunSummary:
    """The run in a report file.

    Raises:
        InvalidReport: the file cannot be read or is no report.
    """
    name = escape_control_chars(str(path))
    raw = read_file(path, origin=name)
    return reducer.reduce(parse(raw, origin=name), source=name, place=ReportLocation.of(raw, path=path))


def read_reports(paths: Sequence[Path], *, meanwhile: Callable[[], None]) -> Iterator[Read]:
    """What :func:`read_report` says of each path, in their order; ``meanwhile`` is called while others read."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    pool = start_workers(len(chunks)) if len(paths) >= PARALLEL_THRESHOLD else None
    if pool is None:
        yield from _read_all(paths)
        return
    with pool:
        waiting = deque((chunk, _submitted(pool, chunk)) for chunk in chunks)
        meanwhile()
        while waiting:
            # A future keeps its result for as long as it is kept itself.
            chunk, future = waiting.popleft()
            found = None
            # A worker that was killed, for memory or by hand, loses nothing: its files are read here.
            with suppress(BrokenProcessPool):
                found = None if future is None else future.result()
            del future
            yield from _read_all(chunk) if found is None else found


def _submitted(pool: ProcessPoolExecutor, chunk: Sequence[Path]) -> Future[list[Read]] | None:
    with suppress(BrokenProcessPool):
        return pool.submit(_read_chunk, chunk)
    return None


def _read_all(paths: Sequence[Path]) -> Iterator[Read]:
    reducer = Reducer()
    for path in paths:
        try:
            yield read_report(path, reducer)
        except InvalidReport as error:
            yield error


def _read_chunk(paths: Sequence[Path]) -> list[Read]:
    return list(_read_all(paths))
