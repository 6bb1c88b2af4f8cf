"""Aggregates readings over a phase: time-weighted, so that uneven sampling does not bias the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.report.measuring import quality_of
from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDARY_TOLERANCE_S: Final = 0.03
"""A counter is read this soon after a phase's end, or was read this short before."""

MIN_RATE_INTERVAL_S: Final = 0.1
"""The operating system counts CPU time in hundredths of a second: over less time a rate is too coarse."""

Floats = NDArray[np.float64]
Interval = tuple[float, float]
"""Start and end, seconds on the phases' clock."""


class Series(NamedTuple):
    """Readings in order of time: ``times`` (n,) in seconds on the phases' clock, ``values`` (n,)."""

    times: Floats
    values: Floats


class ReadingWindow(NamedTuple):
    """The time that a reading stands for: at most ``max_gap_s``, so that it does not cover a gap before it.

    The device averaged over ``window_s`` (0: an instant), or, with ``since_previous``, since the previous reading.
    """

    max_gap_s: float
    window_s: float = 0.0
    since_previous: bool = False


def aggregate(series: Series, intervals: Sequence[Interval], window: ReadingWindow) -> Aggregate | None:
    """Statistics over all ``intervals``; ``None`` where no reading stands for any of that time.

    A reading stands for the time since the previous one. An average over a window counts only if its whole window
    lies inside an interval. So the first ``window_s`` of each interval have no reading, and duration and coverage
    leave them out. Quantiles are weighted by time.
    """
    parts = [_readings_in(series, start_s, end_s, window) for start_s, end_s in intervals]
    duration_s = sum(max(0.0, end_s - start_s - window.window_s) for start_s, end_s in intervals)
    values, weights = np.concatenate([np.empty((2, 0)), *parts], axis=1)
    known = (weights > 0) & np.isfinite(values)
    values, weights = values[known], weights[known]
    if not len(values) or duration_s <= 0:
        return None
    coverage = min(1.0, float(weights.sum() / duration_s))
    return Aggregate(
        # Rounding must not move the mean out of the values' range.
        mean=float(np.clip(np.average(values, weights=weights), values.min(), values.max())),
        p50=_quantile(values, weights, 0.50),
        p95=_quantile(values, weights, 0.95),
        max=float(values.max()),
        n=len(values),
        coverage_ratio=coverage,
        quality=quality_of(readings=len(values), duration_s=duration_s, coverage_ratio=coverage),
    )


def _readings_in(series: Series, start_s: float, end_s: float, window: ReadingWindow) -> Floats:
    """(2, n): the readings inside the interval, and the seconds of it that each stands for."""
    times = series.times
    first, last = (int(index) for index in np.searchsorted(times, [start_s, end_s], side="right"))
    # An instant stands for the time before it, also where it was read just after the end.
    chosen = slice(first, last + (window.window_s == 0))
    at_s = times[chosen]
    previous_s = np.concatenate([[-np.inf], times])[:-1][chosen]
    begin_s = np.maximum(np.maximum(previous_s, at_s - window.max_gap_s), start_s)
    if window.window_s:
        if not window.since_previous:
            begin_s = np.maximum(begin_s, start_s + window.window_s)
        window_start_s = previous_s if window.since_previous else at_s - window.window_s
        begin_s = np.where(window_start_s >= start_s, begin_s, np.inf)
    return np.stack([series.values[chosen], np.maximum(np.minimum(at_s, end_s) - begin_s, 0.0)])


def _quantile(values: Floats, weights: Floats, fraction: float) -> float:
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    index = int(np.searchsorted(cumulated, fraction * cumulated[-1]))
    return float(values[order][min(index, len(values) - 1)])


def counter_delta(series: Series, intervals: Sequence[Interval], *, max_gap_s: float) -> float | None:
    """The growth of a counter over all ``intervals``, interpolated; ``None`` where it is not known.

    Each end of an interval must lie between two readings at most ``max_gap_s`` apart. A counter that fell was reset,
    and its earlier count is lost.
    """
    deltas = [_delta(series, start_s, end_s, max_gap_s) for start_s, end_s in intervals]
    return None if not deltas or None in deltas else sum(filter(None, deltas))


def _delta(series: Series, start_s: float, end_s: float, max_gap_s: float) -> float | None:
    times, values = series
    if end_s <= start_s or not all(_is_read_around(times, at_s, max_gap_s) for at_s in (start_s, end_s)):
        return None
    first, last = np.interp([start_s, end_s], times, values)
    path = np.concatenate([[first], _values_in(series, start_s, end_s), [last]])
    return float(last - first) if (np.diff(path) >= 0).all() else None


def _is_read_around(times: Floats, at_s: float, max_gap_s: float) -> bool:
    """Whether one reading was taken at about ``at_s``, or one shortly before and one shortly after."""
    before = np.searchsorted(times, at_s + BOUNDARY_TOLERANCE_S, side="right") - 1
    after = np.searchsorted(times, at_s - BOUNDARY_TOLERANCE_S)
    return bool(before >= 0 and after < len(times) and times[after] - times[before] <= max_gap_s)


def _values_in(series: Series, start_s: float, end_s: float) -> Floats:
    times, values = series
    return values[np.searchsorted(times, start_s) : np.searchsorted(times, end_s, side="right")]


def max_in(series: Series, intervals: Sequence[Interval]) -> float | None:
    """The largest reading taken inside the intervals; ``None`` without one."""
    inside = [value for interval in intervals for value in _values_in(series, *interval)]
    return float(max(inside)) if inside else None


def rate_of(counter: Series) -> Series:
    """A counter's growth per second, between readings at least ``MIN_RATE_INTERVAL_S`` apart."""
    indices: list[int] = []
    for index, at_s in enumerate(counter.times):
        if not indices or at_s - counter.times[indices[-1]] >= MIN_RATE_INTERVAL_S:
            indices.append(index)
    times, values = counter.times[indices], counter.values[indices]
    rates = np.maximum(np.diff(values), 0.0) / np.diff(times)
    # The first reading has no rate. It stays, as NaN, so that the second one's time begins there.
    return Series(times, np.concatenate([[np.nan], rates]) if len(times) else rates)
