"""The reports that a merge has read, each run once, and the skipped inputs, in limited memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.input.parse import parse_json
from jobs.comparison.input.started import StartedRuns
from jobs.comparison.text import join_limited, shortened
from jobs.errors import BadInput
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from jobs.comparison.input.run_summary import RunSummary

MAX_FIELDS_NAMED: Final = 3
"""Fields named of those in which two reports of one run differ."""

MAX_FILES_NAMED: Final = 3
"""Files named of those that were ignored for their names."""

MAX_LINES_NAMED: Final = 10
"""Line numbers kept of the damaged lines of one log."""

IGNORED: Final = (
    "not read for its name: of a folder only *.json, *.started and *.log are; unpack or rename what holds reports"
)

_PATH_LIMIT: Final = 100

_SHARED_FIELDS: Final = (
    "recipe",
    "framework_version",
    "dataset",
    "rank_setting",
    "compared",
    "environment",
    "node",
    "gpu_uuids",
    "missing",
    "phases",
    "warnings",
    "suspect_of",
    "unchecked",
    "code",
)
"""Fields that many runs have the same value of."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An input that was not used: one file, ``count`` lines of a log, the first in ``lines``, or ``count`` files."""

    source: str
    reason: str
    lines: tuple[int, ...] = ()
    count: int = 1


@dataclass
class ReportCollection:
    """Collects runs and what was skipped; ``reports`` counts all reports read, copies included.

    ``ignored`` counts files in folders that were not read although their names resemble a report's, of which
    ``ignored_names`` are the first.
    """

    reports: int = 0
    ignored: int = 0
    ignored_names: list[str] = field(default_factory=list)
    runs: dict[tuple[str, int], RunSummary] = field(default_factory=dict)
    started: StartedRuns = field(default_factory=StartedRuns)
    skipped: dict[tuple[str, str], Skipped] = field(default_factory=dict)
    _shared: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """Reports and records read, copies included."""
        return self.reports + self.started.records + self.started.ranks.records

    def add(self, run: RunSummary) -> None:
        """Keep ``run``, or the better of two copies: the one with the time series, then the first by name.

        Raises:
            BadInput: a different report has the same run id and attempt.
        """
        self.reports += 1
        known = self.runs.get((run.run_id, run.attempt))
        if known is not None:
            _check_same_report(known, run)
            run = min(known, run, key=lambda copy: (not copy.has_series, copy.source))
        self.runs[run.run_id, run.attempt] = _share_values(run, self._shared)

    def skip(self, source: str, reason: str, *, line: int | None = None) -> None:
        """Note that a file, or a line of a log, could not be used."""
        known = self.skipped.get((source, reason))
        if known is None:
            self.skipped[source, reason] = Skipped(source=source, reason=reason, lines=() if line is None else (line,))
        elif line is not None:
            lines = (*known.lines, line)[:MAX_LINES_NAMED]
            self.skipped[source, reason] = replace(known, lines=lines, count=known.count + 1)

    def ignore(self, name: str) -> None:
        """Note that a file in a folder was not read, although its name resembles a report's."""
        self.ignored += 1
        # The first by name, so that the order of the paths does not matter.
        self.ignored_names = sorted([*self.ignored_names, name])[:MAX_FILES_NAMED]

    def skipped_names(self) -> list[Skipped]:
        """The files that were ignored, as one entry; empty where there are none."""
        if not self.ignored:
            return []
        rest = self.ignored - len(self.ignored_names)
        names = ", ".join(self.ignored_names) + (f" and {rest} more" if rest else "")
        return [Skipped(source=names, reason=IGNORED, count=self.ignored)]


def _share_values(run: RunSummary, known: dict[Hashable, Any]) -> RunSummary:
    """``run`` with its values interned in ``known``, so that equal values are in memory once."""

    def shared(value: Any) -> Any:
        # 1, 1.0 and True are equal and have the same hash, but print differently.
        key = (value, tuple(map(type, value))) if isinstance(value, tuple) else value
        return known.setdefault(key, value)

    return replace(run, **{name: shared(getattr(run, name)) for name in _SHARED_FIELDS})


def _check_same_report(one: RunSummary, other: RunSummary) -> None:
    if one.location.sha256 == other.location.sha256:
        return
    left, right = (parse_json(run.read_json(), origin=run.source) for run in (one, other))
    if not (one.has_series and other.has_series):
        # A log's line has no samples, with a reason; everything else must be equal.
        for document in (left, right):
            document.pop("timeseries", None)
            document["null_reasons"].pop("timeseries", None)
    paths = {shortened(escape_control_chars(path), _PATH_LIMIT) for path in _differences(left, right, "")}
    if paths:
        first, second = sorted((one.source, other.source))
        raise BadInput(
            f"{first!r} and {second!r} hold different reports of one run ({one.run_id}, attempt {one.attempt}): "
            f"{join_limited(sorted(paths), MAX_FIELDS_NAMED)} {'differs' if len(paths) == 1 else 'differ'}; "
            "give the right one only"
        )


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    """The paths at which two JSON documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            below = f"{path}.{key}" if path else key
            if key in one and key in other:
                yield from _differences(one[key], other[key], below)
            else:
                yield below
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for left_item, right_item in zip(one, other, strict=True):
            yield from _differences(left_item, right_item, f"{path}[]")
    elif one != other:
        yield path
