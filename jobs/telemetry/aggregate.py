"""Readings to figures of a phase: time-weighted and clipped to the phase, so that a slow sampler tells no lies."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_SAMPLES: Final = 20
MIN_DURATION_S: Final = 3.0
MIN_COVERAGE_RATIO: Final = 0.9

BOUNDARY_TOLERANCE_S: Final = 0.03
"""A counter that is read at a phase's end is read this soon after it, or was read this short before."""

Floats = NDArray[np.float64]
Interval = tuple[float, float]
"""Start and end, seconds on the phases' clock."""


class Series(NamedTuple):
    """Readings in order of time: ``times`` (n,) in seconds on the phases' clock, ``values`` (n,)."""

    times: Floats
    values: Floats


class ReadingWindow(NamedTuple):
    """What time a reading stands for.

    ``max_gap_s`` is the longest: a gap in the sampling is not covered by what came after it. ``window_s`` is how far
    back the device itself averaged, 0 for an instant. ``since_previous``: it averaged since the reading before.
    """

    max_gap_s: float
    window_s: float = 0.0
    since_previous: bool = False


def aggregate(series: Series, stretches: Sequence[Interval], reach: ReadingWindow) -> Aggregate | None:
    """Figures of the readings over all ``stretches``; ``None`` where none stands for any of that time.

    A reading stands for the time since the one before it. One that averages over a window counts only where the
    whole window lies inside a stretch, so that nothing leaks in from before or after: of each stretch, its first
    ``window_s`` are therefore nobody's, and duration and coverage are those of the rest. Quantiles are of time,
    not of readings.
    """
    values, weights = [np.empty(0)], [np.empty(0)]
    duration_s = 0.0
    for start_s, end_s in stretches:
        duration_s += max(0.0, end_s - start_s - reach.window_s)
        chosen, weight = _inside(series.times, start_s, end_s, reach)
        values.append(series.values[chosen])
        weights.append(weight)
    return _figures(np.concatenate(values), np.concatenate(weights), duration_s)


def _inside(times: Floats, start_s: float, end_s: float, reach: ReadingWindow) -> tuple[slice, Floats]:
    """The readings that stand for time inside the stretch, and for how much of it."""
    first = int(np.searchsorted(times, start_s, side="right"))
    # An instant stands for the time before it, also where it was read just after the end.
    last = int(np.searchsorted(times, end_s, side="right")) + (reach.window_s == 0)
    chosen = slice(first, min(last, len(times)))
    at_s = times[chosen]
    before_s = np.concatenate([[-np.inf], times])[chosen]
    seen_from_s = before_s if reach.since_previous else at_s - reach.window_s
    begins_s = np.maximum(np.maximum(before_s, at_s - reach.max_gap_s), start_s)
    if reach.window_s and not reach.since_previous:
        begins_s = np.maximum(begins_s, start_s + reach.window_s)
    weights = np.minimum(at_s, end_s) - begins_s
    if reach.window_s:
        weights = np.where(seen_from_s >= start_s, weights, 0.0)
    return chosen, np.maximum(weights, 0.0)


def _figures(values: Floats, weights: Floats, duration_s: float) -> Aggregate | None:
    known = (weights > 0) & np.isfinite(values)
    values, weights = values[known], weights[known]
    if not len(values) or duration_s <= 0:
        return None
    coverage = min(1.0, float(weights.sum() / duration_s))
    count = len(values)
    enough = count >= MIN_SAMPLES and duration_s >= MIN_DURATION_S and coverage >= MIN_COVERAGE_RATIO
    # Rounding must not carry a mean past the values it is the mean of.
    mean = float(np.clip(np.average(values, weights=weights), values.min(), values.max()))
    return Aggregate(
        mean=mean,
        p50=_quantile(values, weights, 0.50),
        p95=_quantile(values, weights, 0.95),
        max=float(values.max()),
        n=count,
        coverage_ratio=coverage,
        quality="ok" if enough else "insufficient",
    )


def counted(series: Series, stretches: Sequence[Interval], *, max_gap_s: float) -> float | None:
    """How far a counter went over all ``stretches``, interpolated; ``None`` where that is not known.

    That is where an end of a stretch does not lie between two readings at most ``max_gap_s`` apart, or where the
    counter went backwards: it was reset, and what it counted before is lost.
    """
    parts = [_counted_once(series, start_s, end_s, max_gap_s) for start_s, end_s in stretches]
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def _counted_once(series: Series, start_s: float, end_s: float, max_gap_s: float) -> float | None:
    times, values = series
    if end_s <= start_s or not all(_is_between(times, at_s, max_gap_s) for at_s in (start_s, end_s)):
        return None
    first, last = np.interp([start_s, end_s], times, values)
    inside = values[np.searchsorted(times, start_s) : np.searchsorted(times, end_s, side="right")]
    path = [first, *inside, last]
    if any(later < earlier for earlier, later in pairwise(path)):
        return None
    return float(last - first)


def _is_between(times: Floats, at_s: float, max_gap_s: float) -> bool:
    """Whether there is a reading at ``at_s``, give or take the time it takes, or one before and one after it."""
    before, after = (
        np.searchsorted(times, at_s + BOUNDARY_TOLERANCE_S, side="right") - 1,
        np.searchsorted(times, at_s - BOUNDARY_TOLERANCE_S),
    )
    return bool(before >= 0 and after < len(times) and times[after] - times[before] <= max_gap_s)


def highest(series: Series, stretches: Sequence[Interval]) -> float | None:
    """The largest reading taken inside the stretches; ``None`` without one."""
    inside = [
        series.values[np.searchsorted(series.times, start_s) : np.searchsorted(series.times, end_s, side="right")]
        for start_s, end_s in stretches
    ]
    found = np.concatenate(inside) if inside else np.empty(0)
    return float(found.max()) if len(found) else None


def rate_of(counter: Series, *, least_s: float) -> Series:
    """Per second, between readings of a counter that are at least ``least_s`` apart; each stands for that time."""
    kept: list[int] = []
    for index, at_s in enumerate(counter.times):
        if not kept or at_s - counter.times[kept[-1]] >= least_s:
            kept.append(index)
    times, values = counter.times[kept], counter.values[kept]
    rates = np.maximum(np.diff(values), 0.0) / np.diff(times)
    # The first has nothing before it; it is kept, as not a number, to bound the time of the second.
    return Series(times, np.concatenate([[np.nan], rates]) if len(times) else rates)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    index = int(np.searchsorted(reached, share * reached[-1]))
    return float(values[order][min(index, len(values) - 1)])
