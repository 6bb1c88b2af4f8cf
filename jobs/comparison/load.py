"""Finds the reports in files, folders and logs: every one that is there, each run once, nothing dropped silently."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pydantic import ValidationError

from jobs.comparison.text import visible
from jobs.errors import BadInput
from jobs.report import LINE_MARKER, Report, document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

STANDARD_INPUT: Final = "-"
DAMAGED_LINE: Final = "report line cut short or damaged"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt of one run and the file or log it was read from."""

    report: Report
    source: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that looked like a report and could not be used; ``lines`` are its line numbers in a log."""

    source: str
    reason: str
    lines: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return max(1, len(self.lines))


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What was found, in an order that the order of the input has no part in.

    ``copies`` counts reports found besides the one that is kept of each run and attempt.
    """

    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...]
    copies: int


@dataclass
class _Found:
    runs: list[Run] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, other: _Found) -> None:
        self.runs += other.runs
        self.skipped += other.skipped


def load(paths: Sequence[str], stdin: BinaryIO, *, leave_out: Iterable[Path] = ()) -> Loaded:
    """Read every report under ``paths``.

    A folder is read recursively for ``*.json`` and ``*.log``, hidden files and folders aside; what in it is no
    report is listed in :attr:`Loaded.skipped`, while a file named outright must be one. ``-`` is ``stdin``, read
    like a log: any line with the report marker counts, whatever stands before the marker. ``leave_out`` names
    files of this program's own making, which are not looked at inside folders.

    Raises:
        BadInput: a path is missing, unreadable, no report or without any report, or two different reports
            claim to be the same attempt of the same run.
    """
    if not paths:
        raise BadInput("nothing to merge: no path was given; name report files, folders with reports, or - for a log")
    own = {path.resolve() for path in leave_out}
    everything = _Found()
    for path in dict.fromkeys(paths):
        found = _read_log(stdin, "standard input") if path == STANDARD_INPUT else _read_path(Path(path), own)
        if not found.runs:
            raise BadInput(_nothing_in(path, found))
        everything.add(found)
    runs = _one_per_attempt(everything.runs)
    return Loaded(
        runs=tuple(sorted(runs, key=_run_order)),
        skipped=tuple(sorted(set(everything.skipped), key=lambda skipped: (skipped.source, skipped.reason))),
        copies=len(everything.runs) - len(runs),
    )


def _run_order(run: Run) -> tuple[str, str, str, int, str, int]:
    report, config = run.report, run.report.config
    return (config.recipe, config.protocol, config.framework, config.seed, report.run_id, report.attempt)


def _nothing_in(path: str, found: _Found) -> str:
    where = "standard input" if path == STANDARD_INPUT else repr(_name(Path(path)))
    text = f"{where} holds no report"
    if found.skipped:
        first = found.skipped[0]
        count = sum(skipped.count for skipped in found.skipped)
        text += f" ({count} skipped, the first: {first.source}: {first.reason})"
    return f"{text}; a job writes reports to --report-dir and one line with {LINE_MARKER.strip()} to its log"


def _read_path(path: Path, own: set[Path]) -> _Found:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadInput(
            f"{_name(path)!r} cannot be read ({error.strerror or error}); name a report, a folder with reports, or -"
        ) from error
    if stat.S_ISDIR(mode):
        return _read_folder(path, own)
    if not stat.S_ISREG(mode):
        raise BadInput(f"{_name(path)!r} is neither a file nor a folder; to read a pipe, send it to - instead")
    return _read_file(path)


def _read_file(path: Path) -> _Found:
    if path.suffix != ".log":
        return _Found(runs=[Run(report=document.read(path), source=_name(path))])
    try:
        with path.open("rb") as stream:
            return _read_log(stream, _name(path))
    except OSError as error:
        raise BadInput(f"{_name(path)!r} cannot be read ({error.strerror or error}); check its mode") from error


def _read_folder(folder: Path, own: set[Path]) -> _Found:
    found = _Found()
    for path in _candidates(folder, found.skipped):
        if path.resolve() in own:
            continue
        if not path.is_file():
            found.skipped.append(Skipped(source=_name(path), reason="not a regular file"))
            continue
        try:
            inside = _read_file(path)
        except BadInput as error:
            found.skipped.append(Skipped(source=_name(path), reason=visible(str(error))))
            continue
        if not inside.runs and not inside.skipped:
            inside.skipped.append(Skipped(source=_name(path), reason="a log without a report line"))
        found.add(inside)
    return found


def _candidates(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        reason = f"cannot be read ({error.strerror or error})"
        skipped.append(Skipped(source=_name(Path(os.fsdecode(error.filename or folder))), reason=reason))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
        skipped += [Skipped(source=_name(link), reason="a link to a folder is not followed") for link in links]
        for name in sorted(files):
            if name.endswith((".json", ".log")) and not name.startswith("."):
                yield Path(parent, name)


def _read_log(stream: BinaryIO, source: str) -> _Found:
    found = _Found()
    refused: dict[str, list[int]] = defaultdict(list)
    # Lines end at \n alone: a progress bar's \r belongs to what stands before the marker.
    for number, raw in enumerate(stream, start=1):
        try:
            report = document.from_line(raw.decode("utf-8", errors="replace"), origin=source)
        except BadInput as error:
            # A whole report of another schema version is not a damaged one, and says so.
            whole = isinstance(error.__cause__, ValidationError)
            refused[visible(str(error)) if whole else DAMAGED_LINE].append(number)
            continue
        if report is not None:
            found.runs.append(Run(report=report, source=source))
    found.skipped += [Skipped(source=source, reason=reason, lines=tuple(lines)) for reason, lines in refused.items()]
    return found


def _one_per_attempt(found: Iterable[Run]) -> list[Run]:
    attempts: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in found:
        attempts[run.report.run_id, run.report.attempt].append(run)
    return [_fullest(copies) for copies in attempts.values()]


def _fullest(copies: list[Run]) -> Run:
    """The copy with the time series, which a log line leaves to the file; the name decides among equals."""
    first = copies[0]
    for other in copies[1:]:
        if _without_series(other.report) != _without_series(first.report):
            raise BadInput(
                f"{first.source!r} and {other.source!r} hold different reports of one run "
                f"({first.report.run_id}, attempt {first.report.attempt}); give the right one only"
            )
    return min(copies, key=lambda run: (run.report.timeseries is None, run.source))


def _without_series(report: Report) -> Report:
    reasons = {path: reason for path, reason in report.null_reasons.items() if path != "timeseries"}
    return report.model_copy(update={"timeseries": None, "null_reasons": reasons})


def _name(path: Path) -> str:
    return visible(str(path))
