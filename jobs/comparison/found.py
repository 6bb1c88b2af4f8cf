"""What a merge has found so far: every run once, and what could not be used, in bounded space."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from jobs.comparison.run import Place, Reducer, Run
from jobs.errors import BadInput

if TYPE_CHECKING:
    from jobs.report import Report

LINES_NAMED: Final = 10
"""Line numbers kept of the damaged lines of one log."""


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
class Found:
    """Collects runs and what was skipped; ``reports`` counts all reports seen, copies included."""

    reports: int = 0
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    skipped: dict[tuple[str, str], Skipped] = field(default_factory=dict)
    _reducer: Reducer = field(default_factory=Reducer)

    @property
    def copies(self) -> int:
        return self.reports - len(self.runs)

    def add(self, report: Report, *, source: str, place: Place) -> None:
        """Keep ``report``, or the better of two copies: the one with the time series, then the first by name.

        Raises:
            BadInput: another report claims to be the same attempt of the same run.
        """
        self.add_run(self._reducer.reduce(report, source=source, place=place))

    def add_run(self, new: Run) -> None:
        """The same for a report that was reduced already, by this process or by another.

        Raises:
            BadInput: as :meth:`add`.
        """
        self.reports += 1
        new = self._reducer.share(new)
        known = self.runs.setdefault((new.run_id, new.attempt), new)
        if known is new:
            return
        if _content(known) != _content(new):
            first, second = sorted((known.source, new.source))
            raise BadInput(
                f"{first!r} and {second!r} hold different reports of one run "
                f"({new.run_id}, attempt {new.attempt}); give the right one only"
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


def _content(run: Run) -> Run:
    return replace(run, source="", place=Place(), has_series=False)
