"""How far a metric moved since the baseline, and how far chance alone moves it.

Runs of one day share its conditions: heat, neighbours, clocks. Where runs are of several sessions, a session's median
is one observation. A few sessions do not show how much sessions differ, so a difference is assumed as well.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from math import inf, log, sqrt
from statistics import median, stdev
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.robust import Shift, kept, median_variance, robust_scale
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT
from jobs.comparison.input.metrics import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from jobs.comparison.analysis.sessions import Sessions
    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.input.run_summary import RunSummary

ASSUMED_DRIFT: Final = 0.03
"""Standard deviation between sessions that is assumed, as a share."""

ASSUMED_DEGREES: Final = 20
"""Degrees of freedom with which the assumption counts beside the baseline's own sessions."""


@dataclass(frozen=True)
class Measured:
    """One side of a metric, now or before: its values by session, smallest first, as the metric has them."""

    sessions: list[list[float]]

    @property
    def n(self) -> int:
        return sum(map(len, self.sessions))

    @cached_property
    def medians(self) -> list[float]:
        return [median(values) for values in self.sessions]

    @property
    def median(self) -> float | None:
        """The median over the sessions' medians."""
        return median(self.medians) if self.sessions else None


def counts(run: RunSummary, metric: Metric) -> bool:
    """Whether ``run`` counts: not if its own report calls its measurements suspect."""
    return metric.counts(run.status) and not run.suspect_of


def measured(runs: Iterable[RunSummary], metric: Metric, sessions: Sessions) -> Measured:
    """The values of ``metric``. A score such as an accuracy does not depend on the day: its runs are one session."""
    found: dict[datetime | None, list[float]] = defaultdict(list)
    for run in runs:
        value = run.measured(metric.name)
        if counts(run, metric) and not isinstance(value, Missing):
            found[sessions[run.started_at_utc] if metric.as_ratio else None].append(value)
    return Measured([sorted(values) for _, values in sorted(found.items(), key=str)])


def shift(old: Measured, new: Measured, *, as_ratio: bool, same_session: bool) -> Shift | None:
    """The shift from ``old`` to ``new``, of logarithms where ``as_ratio``; ``None`` with too few values.

    ``same_session``: all runs of both are of one session, so that they share its conditions.
    """
    if old.n < RUNS_FOR_A_VERDICT or new.n == 0 or old.median is None or new.median is None:
        return None
    if as_ratio and min(values[0] for values in (*old.sessions, *new.sessions)) <= 0:
        return None
    if same_session:
        before, now = _flat(old, as_ratio=as_ratio), _flat(new, as_ratio=as_ratio)
        change = median(now) - median(before)
        error = robust_scale(before) * sqrt(1 / len(before) + 1 / len(now))
        return Shift(change, error, sizes=(len(before), len(now)))
    return _between_sessions(old, new)


def _flat(side: Measured, *, as_ratio: bool) -> list[float]:
    return [log(value) if as_ratio else value for values in side.sessions for value in values]


def _between_sessions(old: Measured, new: Measured) -> Shift:
    """The shift of logarithms, with the session as the unit.

    The variance between sessions is that of the baseline, moderated by the assumed one, which counts as
    :data:`ASSUMED_DEGREES` further degrees of freedom (Smyth 2004, the moderated t).
    """
    before, now = ([log(value) for value in side.medians] for side in (old, new))
    within = _noise_within(old)
    variance, degrees = ASSUMED_DRIFT**2 + _median_noise(old) * within**2, inf
    if len(before) > 1:
        observed, own = _spread(before)
        degrees = ASSUMED_DEGREES + own
        variance = (ASSUMED_DEGREES * variance + own * observed**2) / degrees
    # A session now may have fewer runs than those of the baseline, and its median then more noise.
    more = max(0.0, _median_noise(new) - _median_noise(old)) * within**2 * median_variance(len(now))
    error = sqrt(variance * (median_variance(len(before)) + median_variance(len(now))) + more)
    return Shift(median(now) - median(before), error, degrees=degrees)


def _spread(values: Sequence[float]) -> tuple[float, int]:
    """Standard deviation and its degrees of freedom, robust where there are values enough."""
    if len(values) < RUNS_FOR_A_VERDICT:
        return stdev(values), len(values) - 1
    return robust_scale(values), kept(len(values)) - 1


def _median_noise(side: Measured) -> float:
    """The variance of a session's median by the noise of its runs, in units of one run's, as a mean over sessions."""
    return sum(median_variance(len(values)) for values in side.sessions) / len(side.sessions)


def _noise_within(side: Measured) -> float:
    """The runs' standard deviation within sessions, in logarithms."""
    several = [(values, middle) for values, middle in zip(side.sessions, side.medians, strict=True) if len(values) > 1]
    residuals = [log(value) - log(middle) for values, middle in several for value in values]
    if len(residuals) - len(several) < RUNS_FOR_A_VERDICT - 1:
        # Too few runs within sessions. The spread of all runs is larger, since it includes the drift.
        return robust_scale(_flat(side, as_ratio=True))
    # A session's own median takes one degree of freedom.
    return sqrt(len(residuals) / (len(residuals) - len(several))) * robust_scale(residuals)
