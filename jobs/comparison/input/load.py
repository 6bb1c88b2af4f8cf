"""Loads the reports in files, folders and logs: each run once, with a list of what was skipped."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from jobs.comparison.input.files import read_report, read_reports, report_files
from jobs.comparison.input.logs import read_log
from jobs.comparison.input.parse import InvalidReport, open_regular, read_file
from jobs.comparison.input.report_collection import ReportCollection
from jobs.comparison.input.started import parse_started
from jobs.comparison.text import join_limited, pluralize
from jobs.errors import BadInput
from jobs.io.stdio import escape_control_chars
from jobs.report import LINE_MARKER
from jobs.report.started import STARTED_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.input.report_collection import Skipped
    from jobs.comparison.input.run_summary import RunSummary

STANDARD_INPUT: Final = "-"
MAX_RUNS_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The loaded runs, in an order that does not depend on the input's.

    ``copies`` counts reports read besides the one that is kept of each run and attempt. The files of folders that were
    not read although their names resemble a report's are the first of ``skipped``. A run that has started and has no
    report is one of ``runs``, as a failed one.
    """

    runs: tuple[RunSummary, ...]
    skipped: tuple[Skipped, ...]
    copies: int


def load(paths: Sequence[str], stdin: BinaryIO, *, leave_out: Iterable[Path] = ()) -> Loaded:
    """Read every report under ``paths``.

    A folder is read recursively for ``*.json``, ``*.started`` and ``*.log``, except hidden files and folders; what in
    it is neither report nor started record is listed in :attr:`Loaded.skipped`, while a file given by name must be one.
    ``-`` is ``stdin``, read as a log: any line with a marker counts, with any text before it. ``leave_out`` names this
    program's output files, which are not read from folders.

    Raises:
        BadInput: a path is missing, unreadable, no report or without any report, or two different reports have the
            same run id and attempt.
    """
    if not paths:
        raise BadInput("nothing to merge: no path was given; name report files, folders with reports, or - for a log")
    excluded = tuple(leave_out)
    collection = ReportCollection()
    for path in dict.fromkeys(paths):
        read, skipped = collection.read, len(collection.skipped)
        if path == STANDARD_INPUT:
            read_log(stdin, collection, source="standard input")
        else:
            _read_path(path, collection, excluded)
        if collection.read == read:
            raise BadInput(_no_report_text(path, list(collection.skipped.values())[skipped:], collection))
    reported = list(collection.runs.values())
    if not reported:
        ranks = list(collection.started.ranks.texts())
        seen = f" ({join_limited(ranks, MAX_RUNS_NAMED, '; ')})" if ranks else ""
        raise BadInput(
            f"none of the runs has a report: {pluralize(collection.started.records, 'started record')} of runs that "
            f"died, or are still running{seen}; give the reports of others beside them"
        )
    died = collection.started.without_report(reported, reported[0].dataset)
    return Loaded(
        runs=tuple(sorted([*reported, *died], key=_run_order)),
        skipped=(
            *collection.skipped_names(),
            *sorted(collection.skipped.values(), key=lambda skipped: (skipped.source, skipped.reason)),
        ),
        copies=collection.reports - len(collection.runs),
    )


def _run_order(run: RunSummary) -> tuple[Any, ...]:
    return (run.recipe, run.protocol, run.rank_setting, run.framework, run.seed, run.run_id, run.attempt)


def _no_report_text(path: str, skipped: Sequence[Skipped], collection: ReportCollection) -> str:
    text = f"{'standard input' if path == STANDARD_INPUT else repr(_shown(path))} holds no report"
    if skipped:
        count = sum(item.count for item in skipped)
        text += f" ({count} skipped, the first: {skipped[0].source}: {skipped[0].reason})"
    for ignored in collection.skipped_names():
        text += f" ({ignored.source}: {ignored.reason})"
    return f"{text}; a job writes reports to --report-dir and one line with {LINE_MARKER.strip()} to its log"


def _read_path(path: str, collection: ReportCollection, leave_out: Iterable[Path]) -> None:
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{_shown(path)!r} cannot be read ({reason}); name a report, a folder with reports, or -"
        ) from error
    # A path as pathlib writes it, without a repeated or final slash, names the same file in every output.
    path = str(Path(path))
    if stat.S_ISDIR(mode):
        _read_folder(Path(path), collection, leave_out)
    elif not stat.S_ISREG(mode):
        raise BadInput(f"{_shown(path)!r} is neither a file nor a folder; to read a pipe, send it to - instead")
    elif path.endswith(".log"):
        _read_log_file(path, collection)
    elif path.endswith(STARTED_SUFFIX):
        _read_started(path, collection)
    else:
        collection.add(read_report(path))


def _read_folder(folder: Path, collection: ReportCollection, leave_out: Iterable[Path]) -> None:
    files = list(report_files(folder, collection, leave_out))
    reports = [path for path in files if path.endswith(".json")]
    for path, run in zip(reports, read_reports(reports), strict=True):
        if isinstance(run, InvalidReport):
            collection.skip(_shown(path), str(run))
        else:
            collection.add(run)
    for path in files:
        if path.endswith(STARTED_SUFFIX):
            try:
                _read_started(path, collection)
            except InvalidReport as error:
                collection.skip(_shown(path), str(error))
        elif path.endswith(".log"):
            before = (collection.read, len(collection.skipped))
            try:
                _read_log_file(path, collection)
            except InvalidReport as error:
                collection.skip(_shown(path), str(error))
            if (collection.read, len(collection.skipped)) == before:
                collection.skip(_shown(path), "a log without a report line")


def _read_started(path: str, collection: ReportCollection) -> None:
    source = _shown(path)
    raw = read_file(path, origin=source)
    collection.started.add(parse_started(raw, origin=source), source=source, raw=raw)


def _read_log_file(path: str, collection: ReportCollection) -> None:
    source = _shown(path)
    with open_regular(path, origin=source) as (stream, size):
        read_log(stream, collection, source=source, path=path, size=size)


def _shown(path: str) -> str:
    return escape_control_chars(path)
