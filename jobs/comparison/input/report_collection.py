"""What a merge has found so far: every run once, and what could not be used, in bounded space."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.input.parse import parse_json
from jobs.comparison.input.run_summary import Reducer, RunSummary
from jobs.comparison.text import listed, shortened
from jobs.errors import BadInput
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.comparison.input.run_summary import ReportLocation
    from jobs.report import Report

FIELDS_NAMED: Final = 3
"""Fields named of those in which two reports of one run differ."""

FILES_NAMED: Final = 3
"""Names kept of the files in folders that were passed over."""

LINES_NAMED: Final = 10
"""Line numbers kept of the damaged lines of one log."""


_PATH_LIMIT: Final = 100


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that looked like a report and could not be used.

    ``count`` lines of a log, of which ``lines`` are the first ones' numbers; or one file, without lines.
    """

    source: str
    reason: str
    lines: tuple[int, ...] = ()
    count: int = 1


@dataclass
class ReportCollection:
    """Collects runs and what was skipped; ``reports`` counts all reports seen, copies included.

    ``passed_over`` counts files in folders that are not read for their names alone, of which ``passed_over_names``
    are the first.
    """

    reports: int = 0
    passed_over: int = 0
    passed_over_names: list[str] = field(default_factory=list)
    runs: dict[tuple[str, int], RunSummary] = field(default_factory=dict)
    skipped: dict[tuple[str, str], Skipped] = field(default_factory=dict)
    _reducer: Reducer = field(default_factory=Reducer)

    @property
    def copies(self) -> int:
        return self.reports - len(self.runs)

    def add(self, report: Report, *, source: str, place: ReportLocation) -> None:
        """Keep ``report``, or the better of two copies: the one with the time series, then the first by name.

        Raises:
            BadInput: another report claims to be the same attempt of the same run.
        """
        self.add_run(self._reducer.reduce(report, source=source, place=place))

    def add_run(self, new: RunSummary) -> None:
        """The same for a report that was reduced already, by this process or by another.

        Raises:
            BadInput: as :meth:`add`.
        """
        self.reports += 1
        new = self._reducer.share(new)
        known = self.runs.setdefault((new.run_id, new.attempt), new)
        if known is new:
            return
        differing = _differing_fields(known, new)
        if differing:
            first, second = sorted((known.source, new.source))
            raise BadInput(
                f"{first!r} and {second!r} hold different reports of one run ({new.run_id}, attempt {new.attempt}): "
                f"{listed(differing, FIELDS_NAMED)} {'differs' if len(differing) == 1 else 'differ'}; "
                "give the right one only"
            )
        self.runs[new.run_id, new.attempt] = min(known, new, key=lambda run: (not run.has_series, run.source))

    def skip(self, source: str, reason: str, *, line: int | None = None) -> None:
        """Note that a file, or a line of a log, could not be used."""
        known = self.skipped.get((source, reason))
        if known is None:
            skipped = Skipped(source=source, reason=reason, lines=() if line is None else (line,))
        elif line is None:
            return
        else:
            lines = known.lines if known.count >= LINES_NAMED else (*known.lines, line)
            skipped = replace(known, lines=lines, count=known.count + 1)
        self.skipped[source, reason] = skipped

    def pass_over(self, name: str) -> None:
        """Note that a file in a folder was not looked at, though its name is much like a report's."""
        self.passed_over += 1
        if len(self.passed_over_names) < FILES_NAMED:
            self.passed_over_names.append(name)


def _differing_fields(one: RunSummary, other: RunSummary) -> list[str]:
    """Where two reports of one run differ, as paths; all they say counts, not only what is compared.

    A log's line leaves the samples to the file: they, and why they are missing, count where both have them.
    """
    if one.place.sha256 == other.place.sha256:
        return []
    here, there = (parse_json(run.raw(), origin=run.source) for run in (one, other))
    if not (one.has_series and other.has_series):
        for document in (here, there):
            document.pop("timeseries", None)
            document["null_reasons"].pop("timeseries", None)
    return sorted({shortened(escape_control_chars(path), _PATH_LIMIT) for path in _differences(here, there, "")})


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            below = f"{path}.{key}" if path else key
            if key in one and key in other:
                yield from _differences(one[key], other[key], below)
            else:
                yield below
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for here, there in zip(one, other, strict=True):
            yield from _differences(here, there, f"{path}[]")
    elif one != other:
        yield path
