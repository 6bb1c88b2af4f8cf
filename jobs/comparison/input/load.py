"""Finds the reports in files, folders and logs: every one that is there, each run once, nothing dropped silently."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.comparison.input.folder import READ, report_files
from jobs.comparison.input.logs import read_log
from jobs.comparison.input.parallel_read import read_report, read_reports
from jobs.comparison.input.parse import InvalidReport, open_regular
from jobs.comparison.input.report_collection import ReportCollection, Skipped
from jobs.comparison.input.run_summary import Reducer, RunSummary
from jobs.comparison.text import counted
from jobs.errors import BadInput
from jobs.io.stdio import escape_control_chars
from jobs.report import LINE_MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STANDARD_INPUT: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What was found, in an order that the order of the input has no part in.

    ``copies`` counts reports found besides the one that is kept of each run and attempt; ``passed_over`` says which
    files of folders were not read for their names alone, ``None`` where none was much like a report.
    """

    runs: tuple[RunSummary, ...]
    skipped: tuple[Skipped, ...]
    copies: int
    passed_over: str | None = None


def load(
    paths: Sequence[str],
    stdin: BinaryIO,
    *,
    leave_out: Iterable[Path] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Loaded:
    """Read every report under ``paths``.

    A folder is read recursively for ``*.json`` and ``*.log``, hidden files and folders aside; what in it is no
    report is listed in :attr:`Loaded.skipped`, while a file named outright must be one. ``-`` is ``stdin``, read
    like a log: any line with the report marker counts, whatever stands before the marker. ``leave_out`` names
    files of this program's own making, which are not looked at inside folders. ``meanwhile`` is called where this
    process would only wait for others that read.

    Raises:
        BadInput: a path is missing, unreadable, no report or without any report, or two different reports
            claim to be the same attempt of the same run.
    """
    if not paths:
        raise BadInput("nothing to merge: no path was given; name report files, folders with reports, or - for a log")
    own = tuple(leave_out)
    found = ReportCollection()
    for path in dict.fromkeys(paths):
        seen, skipped = found.reports, len(found.skipped)
        if path == STANDARD_INPUT:
            read_log(stdin, found, source="standard input")
        else:
            _read_path(Path(path), found, own, meanwhile)
        if found.reports == seen:
            raise BadInput(_nothing_in(path, list(found.skipped.values())[skipped:], found))
    return Loaded(
        runs=tuple(sorted(found.runs.values(), key=_run_order)),
        skipped=tuple(sorted(found.skipped.values(), key=lambda skipped: (skipped.source, skipped.reason))),
        copies=found.copies,
        passed_over=_passed_over(found),
    )


def _run_order(run: RunSummary) -> tuple[str, str, str, int, str, int]:
    return (run.recipe, run.protocol, run.framework, run.seed, run.run_id, run.attempt)


def _passed_over(found: ReportCollection) -> str | None:
    if not found.passed_over:
        return None
    rest = found.passed_over - len(found.passed_over_names)
    names = ", ".join(found.passed_over_names) + (f" and {rest} more" if rest else "")
    return (
        f"{counted(found.passed_over, 'file')} not read ({names}): of a folder only "
        f"{' and '.join(f'*{end}' for end in READ)} are; unpack or rename what holds reports"
    )


def _nothing_in(path: str, skipped: Sequence[Skipped], found: ReportCollection) -> str:
    where = "standard input" if path == STANDARD_INPUT else repr(_name(Path(path)))
    text = f"{where} holds no report"
    if skipped:
        count = sum(one.count for one in skipped)
        text += f" ({count} skipped, the first: {skipped[0].source}: {skipped[0].reason})"
    passed_over = _passed_over(found)
    if passed_over:
        text += f" ({passed_over})"
    return f"{text}; a job writes reports to --report-dir and one line with {LINE_MARKER.strip()} to its log"


def _read_path(path: Path, found: ReportCollection, own: Sequence[Path], meanwhile: Callable[[], None]) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{_name(path)!r} cannot be read ({reason}); name a report, a folder with reports, or -"
        ) from error
    if stat.S_ISDIR(mode):
        _read_folder(path, found, own, meanwhile)
    elif stat.S_ISREG(mode):
        _read_file(path, found)
    else:
        raise BadInput(f"{_name(path)!r} is neither a file nor a folder; to read a pipe, send it to - instead")


def _read_file(path: Path, found: ReportCollection) -> None:
    if path.suffix == ".log":
        _read_log_file(path, found)
    else:
        found.add_run(read_report(path, Reducer()))


def _read_log_file(path: Path, found: ReportCollection) -> None:
    name = _name(path)
    with open_regular(path, origin=name) as (stream, size):
        read_log(stream, found, source=name, path=path, size=size)


def _read_folder(folder: Path, found: ReportCollection, own: Sequence[Path], meanwhile: Callable[[], None]) -> None:
    files = list(report_files(folder, found, own))
    reports = [path for path in files if path.suffix != ".log"]
    for path, read in zip(reports, read_reports(reports, meanwhile=meanwhile), strict=True):
        if isinstance(read, RunSummary):
            found.add_run(read)
        else:
            found.skip(_name(path), str(read))
    for path in files:
        if path.suffix == ".log":
            _read_folder_log(path, found)


def _read_folder_log(path: Path, found: ReportCollection) -> None:
    seen, skipped = found.reports, len(found.skipped)
    try:
        _read_log_file(path, found)
    except InvalidReport as error:
        found.skip(_name(path), str(error))
        return
    if (found.reports, len(found.skipped)) == (seen, skipped):
        found.skip(_name(path), "a log without a report line")


def _name(path: Path) -> str:
    return escape_control_chars(str(path))
