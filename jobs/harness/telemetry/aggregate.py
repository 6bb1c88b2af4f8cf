"""Samples to figures of a phase: time-weighted and clipped to the phase, so that a slow sampler tells no lies."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.report.schema import Aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_SAMPLES: Final = 20
LEAST_DURATION_S: Final = 3.0
LEAST_COVERAGE_RATIO: Final = 0.9

Sample = tuple[float, float]
"""(seconds on the phases' clock, value)"""


def aggregate(samples: Sequence[Sample], start_s: float, end_s: float, *, hold_s: float) -> Aggregate | None:
    """Figures of the samples between ``start_s`` and ``end_s``; ``None`` where none stands for any of that time.

    ``samples`` are in order of time. One stands for the time since the one before it, but for ``hold_s`` at the
    most: a gap in the sampling is not covered by what came after it. Quantiles are of time, not of samples.
    """
    duration_s = end_s - start_s
    if duration_s <= 0 or not samples:
        return None
    times = np.array([sample[0] for sample in samples])
    values = np.array([sample[1] for sample in samples])
    begins = np.maximum(np.concatenate([[-np.inf], times[:-1]]), times - hold_s)
    weights = np.minimum(times, end_s) - np.maximum(begins, start_s)
    inside = weights > 0
    if not inside.any():
        return None
    values, weights = values[inside], weights[inside]
    coverage = min(1.0, float(weights.sum() / duration_s))
    count = int(inside.sum())
    enough = count >= LEAST_SAMPLES and duration_s >= LEAST_DURATION_S and coverage >= LEAST_COVERAGE_RATIO
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


def counted(samples: Sequence[Sample], start_s: float, end_s: float, *, hold_s: float) -> float | None:
    """How far a counter went between two times, interpolated; ``None`` where no sample is within ``hold_s`` of both.

    A counter that went backwards was reset, and what it counted before is unknown: ``None`` too.
    """
    times = [sample[0] for sample in samples]
    values = [sample[1] for sample in samples]
    if not times or end_s <= start_s or times[0] > start_s + hold_s or times[-1] < end_s - hold_s:
        return None
    first, last = np.interp([start_s, end_s], times, values)
    between = [value for time, value in samples if start_s <= time <= end_s]
    path = [first, *between, last]
    if any(later < earlier for earlier, later in pairwise(path)):
        return None
    return float(last - first)


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    index = int(np.searchsorted(reached, share * reached[-1]))
    return float(values[order][min(index, len(values) - 1)])
