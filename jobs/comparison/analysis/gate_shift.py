"""How far a metric moved since the baseline, and how far chance alone moves it.

Runs of one day share its conditions: heat, neighbours, clocks. Where runs are of several sessions, a session's median
is one observation. Where the baseline has too few sessions to show how much they differ, a difference is assumed.
"""

from __future__ import annotations

from collections import defaultdict
from math import log, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jobs.comparison.analysis.robust import Shift, kept, median_variance, robust_scale
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT
from jobs.comparison.input.metrics import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jobs.comparison.analysis.sessions import Sessions
    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.input.run_summary import RunSummary

ASSUMED_DRIFT: Final = 0.03
"""Standard deviation between sessions, as a share, assumed where fewer than five show it."""


class Measured(NamedTuple):
    """One side of a metric, now or before: its values by session, as the metric has them."""

    sessions: list[list[float]]

    @property
    def n(self) -> int:
        return sum(map(len, self.sessions))

    @property
    def medians(self) -> list[float]:
        return [float(np.quantile(values, 0.5)) for values in self.sessions]

    @property
    def median(self) -> float | None:
        """The median over the sessions' medians."""
        return float(np.quantile(self.medians, 0.5)) if self.sessions else None


def counts(run: RunSummary, metric: Metric) -> bool:
    """Whether ``run`` counts: not if its own report calls its measurements suspect."""
    return metric.counts(run.status) and not run.suspect_of


def measured(runs: Iterable[RunSummary], metric: Metric, sessions: Sessions) -> Measured:
    """The values of ``metric``. A score such as an accuracy does not depend on the day: its runs are one session."""
    found: dict[datetime | None, list[float]] = defaultdict(list)
    for run in runs:
        value = run.measured[metric.name]
        if counts(run, metric) and not isinstance(value, Missing):
            found[sessions.of(run) if metric.as_ratio else None].append(value)
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
        change = float(np.quantile(now, 0.5) - np.quantile(before, 0.5))
        error = robust_scale(before) * sqrt(1 / len(before) + 1 / len(now))
        return Shift(change, error, sizes=(len(before), len(now)))
    return _between_sessions(old, new)


def _flat(side: Measured, *, as_ratio: bool) -> list[float]:
    return [log(value) if as_ratio else value for values in side.sessions for value in values]


def _between_sessions(old: Measured, new: Measured) -> Shift:
    before, now = ([log(value) for value in side.medians] for side in (old, new))
    change = float(np.quantile(now, 0.5) - np.quantile(before, 0.5))
    within, degrees = _noise_within(old)
    sizes = len(before), len(now)
    if len(before) >= RUNS_FOR_A_VERDICT:
        # A session now may have fewer runs than those of the baseline, and its median then more noise.
        more = max(0.0, _median_noise(new) - _median_noise(old)) * within**2 * median_variance(len(now))
        error = sqrt(robust_scale(before) ** 2 * (1 / sizes[0] + 1 / sizes[1]) + more)
        return Shift(change, error, sizes=sizes)
    observed = float(np.std(before, ddof=1)) if len(before) > 1 else 0.0
    drift = max(ASSUMED_DRIFT, observed) ** 2 * (median_variance(sizes[0]) + median_variance(sizes[1]))
    noise = within**2 * sum(_median_noise(side) * median_variance(n) for side, n in zip((old, new), sizes, strict=True))
    # Welch and Satterthwaite: the drift is assumed, the noise within sessions is estimated.
    return Shift(change, sqrt(drift + noise), degrees=(drift + noise) ** 2 * degrees / noise**2 if noise else np.inf)


def _median_noise(side: Measured) -> float:
    """The variance of a session's median by the noise of its runs, in units of one run's, as a mean over sessions."""
    return float(np.mean([median_variance(len(values)) for values in side.sessions]))


def _noise_within(side: Measured) -> tuple[float, float]:
    """The runs' standard deviation within sessions, in logarithms, and its degrees of freedom."""
    residuals = [
        log(value) - log(middle)
        for values, middle in zip(side.sessions, side.medians, strict=True)
        if len(values) > 1
        for value in values
    ]
    lost = sum(len(values) > 1 for values in side.sessions)
    if len(residuals) < RUNS_FOR_A_VERDICT or kept(len(residuals)) - lost < 1:
        # Too few runs within sessions. The spread of all runs is larger, since it includes the drift.
        return robust_scale(_flat(side, as_ratio=True)), kept(side.n) - 1
    # A session's own median takes one degree of freedom.
    inflation = sqrt(len(residuals) / (len(residuals) - lost))
    return inflation * robust_scale(residuals), kept(len(residuals)) - lost
