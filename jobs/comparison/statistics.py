"""The statistics of a comparison: one run is one observation, and a verdict needs enough of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95
RUNS_FOR_A_VERDICT: Final = 5
SMALLEST_EFFECT: Final = 1.03
"""A side is called faster from 3 % on, and both are called equivalent within it, whichever is the numerator."""

_SEED: Final = 20_200_813
_VALUES_AT_ONCE: Final = 2_000_000
"""Resampled values in memory at a time (8 bytes each)."""

VerdictKind = Literal["faster", "equivalent", "inconclusive", "too_few_runs", "single_observation", "one_side_only"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``n`` observations: their median, quartiles (linear interpolation) and range, in their own unit."""

    n: int
    median: float
    q1: float
    q3: float
    minimum: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class RatioOfMedians:
    """``low`` and ``high`` bound the bootstrap interval; both are ``None`` with too few observations for one."""

    ratio: float
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary | None:
    """The summary of ``values``, ``None`` where there are none."""
    if not values:
        return None
    # Sums of equal values in another order may round differently; sorted, the input's order has no part in it.
    minimum, q1, median, q3, maximum = (float(value) for value in np.quantile(sorted(values), [0, 0.25, 0.5, 0.75, 1]))
    return Summary(n=len(values), median=median, q1=q1, q3=q3, minimum=minimum, maximum=maximum)


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> RatioOfMedians | None:
    """The ratio of the two medians, with its bootstrap interval where each side has enough observations.

    The interval is the percentile interval of :data:`RESAMPLES` seeded resamples, so equal values always give
    the same one. ``None`` where a side is empty, a value is not positive, or a ratio is past a float's range.
    """
    if not numerator or not denominator or min(*numerator, *denominator, 1.0) <= 0:
        return None
    above, below = np.sort(np.asarray(numerator, float)), np.sort(np.asarray(denominator, float))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ratio = float(_ratio(above, below, axis=-1))
        if min(above.size, below.size) < RUNS_FOR_A_VERDICT:
            return RatioOfMedians(ratio=ratio, low=None, high=None) if isfinite(ratio) and ratio > 0 else None
        interval = stats.bootstrap(
            (above, below),
            _ratio,
            n_resamples=RESAMPLES,
            batch=max(1, _VALUES_AT_ONCE // max(above.size, below.size)),
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    if not all(isfinite(bound) and bound > 0 for bound in (ratio, low, high)):
        return None
    return RatioOfMedians(ratio=ratio, low=low, high=high)


def judge(runs: tuple[int, int], comparison: RatioOfMedians | None) -> VerdictKind:
    """The verdict on two sides with ``runs`` observations each.

    *faster* (or slower: the ratio says which) needs an interval without 1 and an effect of 3 %, *equivalent* an
    interval inside 3 % either way; anything else is *inconclusive*.
    """
    if runs == (1, 1):
        return "single_observation"
    if min(runs) < RUNS_FOR_A_VERDICT:
        return "too_few_runs"
    if comparison is None or comparison.low is None or comparison.high is None:
        return "inconclusive"
    if comparison.low >= 1 / SMALLEST_EFFECT and comparison.high <= SMALLEST_EFFECT:
        return "equivalent"
    excludes_one = comparison.low > 1 or comparison.high < 1
    if excludes_one and max(comparison.ratio, 1 / comparison.ratio) >= SMALLEST_EFFECT:
        return "faster"
    return "inconclusive"


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any], axis: int) -> NDArray[Any]:
    # np.median averages the middle two by their sum, which overflows where np.quantile interpolates.
    return np.asarray(np.quantile(numerator, 0.5, axis=axis) / np.quantile(denominator, 0.5, axis=axis))
