"""The statistics of a comparison: one run is one observation, and a verdict needs enough of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jobs.comparison.schema import VerdictKind

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.90
"""Of the interval. Equivalence at 5 % is a 90 % interval inside the margins: two one-sided tests (Schuirmann 1987)."""

ALPHA: Final = 0.01
"""How often two sides that are the same may be told apart: the level of the permutation test of one comparison."""

FAMILYWISE_ALPHA: Final = 0.05
"""How often one table may tell apart any two sides that are the same: the level after Holm's correction."""

UNSTABLE_SPREAD: Final = 0.10
"""A side whose interquartile range is over this share of its median is called unstable."""

RUNS_FOR_A_VERDICT: Final = 5
SMALLEST_EFFECT: Final = 1.03
"""A side is called faster from 3 % on, and both are called equivalent within it, whichever is the numerator."""

_SEED: Final = 20_200_813
_VALUES_AT_ONCE: Final = 2_000_000
"""Resampled values in memory at a time (8 bytes each)."""
_LARGEST_SPREAD: Final = 1e6
_PERMUTATIONS_NEAR: Final = 200_000
"""Permutations where p is near its level, and 10,000 might fall on either side: all there are of ten runs a side."""
_MANY: Final = 200
"""Values a side beyond which resampling one by one would cost seconds and change no digit that is shown."""


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


@dataclass(frozen=True, kw_only=True)
class Significance:
    """``p`` of the permutation test, and ``p_table``, Holm's correction over all tests of a table."""

    p: float
    p_table: float


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
        low, high = _interval(above, below)
    if not all(isfinite(bound) and bound > 0 for bound in (ratio, low, high)):
        return None
    return RatioOfMedians(ratio=ratio, low=low, high=high)


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The two-sided p of a permutation test on the difference of mean logarithms, which no unit has a part in.

    Exact up to seven runs a side, and up to ten where the verdict hangs on it; from :data:`RESAMPLES` seeded
    permutations beyond, and from 200 runs on a side by Welch's t-test, which the permutation test approaches.
    ``None`` with too few observations for a verdict or with one that is not positive.
    """
    if min(len(one), len(other)) < RUNS_FOR_A_VERDICT or min(*one, *other) <= 0:
        return None
    logs = [np.log(np.sort(np.asarray(values, float))) for values in (one, other)]
    if np.ptp(np.concatenate(logs)) == 0:
        return 1.0
    if max(map(len, logs)) > _MANY:
        with warnings.catch_warnings():
            # Of sides without any scatter it says that it lost precision, and gives the right 0 all the same.
            warnings.simplefilter("ignore", RuntimeWarning)
            return float(stats.ttest_ind(*logs, equal_var=False).pvalue)
    p = _permuted(logs, RESAMPLES)
    return _permuted(logs, _PERMUTATIONS_NEAR) if ALPHA / 2 <= p <= ALPHA * 2 else p


def holm_correction(p_values: Sequence[float | None]) -> list[Significance | None]:
    """Each p with Holm's (1979) correction over all that are there: no table is more sure than its weakest claim."""
    ranked = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    corrected: list[Significance | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        corrected[at] = Significance(p=p, p_table=highest)
    return corrected


def judge(runs: tuple[int, int], comparison: RatioOfMedians | None, significance: Significance | None) -> VerdictKind:
    """The verdict on two sides with ``runs`` observations each.

    *faster* (or slower: the ratio says which) needs an interval without 1, an effect of 3 %, and a permutation test
    that says so by itself and in its table; *equivalent* needs an interval inside 3 % either way; anything else is
    *inconclusive*.
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
    large = max(comparison.ratio, 1 / comparison.ratio) >= SMALLEST_EFFECT
    return "faster" if excludes_one and large and significant(significance) else "inconclusive"


def significant(significance: Significance | None) -> bool:
    """Whether a permutation test tells two sides apart, by itself and among all tests of its table."""
    return significance is not None and significance.p <= ALPHA and significance.p_table <= FAMILYWISE_ALPHA


def spread(summary: Summary) -> float | None:
    """The interquartile range as a share of the median; ``None`` where that says nothing."""
    if summary.n < RUNS_FOR_A_VERDICT or summary.median <= 0:
        return None
    return min((summary.q3 - summary.q1) / summary.median, _LARGEST_SPREAD)


def _permuted(logs: Sequence[NDArray[Any]], permutations: int) -> float:
    result = stats.permutation_test(
        logs,
        lambda one, other, axis: np.mean(one, axis=axis) - np.mean(other, axis=axis),
        vectorized=True,
        n_resamples=permutations,
        batch=max(1, _VALUES_AT_ONCE // sum(map(len, logs))),
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)


def _interval(above: NDArray[Any], below: NDArray[Any]) -> tuple[float, float]:
    random = np.random.default_rng(_SEED)
    if max(above.size, below.size) > _MANY:
        ratios = _resampled_medians(above, random) / _resampled_medians(below, random)
        low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)
    interval = stats.bootstrap(
        (above, below),
        _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // max(above.size, below.size)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=random,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _resampled_medians(ordered: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Medians of :data:`RESAMPLES` bootstrap resamples, without drawing each resample.

    The ranks in a resample are those of ``n`` uniform draws, of whose order statistics the middle one or two are
    drawn by themselves: the k-th is Beta(k, n-k+1), and the next lies above it like the least of the n-k others.
    """
    n = ordered.size
    middle = (n + 1) // 2
    first = random.beta(middle, n - middle + 1, RESAMPLES)
    lower = ordered[np.minimum((first * n).astype(int), n - 1)]
    if n % 2:
        return np.asarray(lower)
    second = first + (1 - first) * random.beta(1, n - middle, RESAMPLES)
    upper = ordered[np.minimum((second * n).astype(int), n - 1)]
    return np.asarray(lower + (upper - lower) / 2)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any], axis: int) -> NDArray[Any]:
    # np.median averages the middle two by their sum, which overflows where np.quantile interpolates.
    return np.asarray(np.quantile(numerator, 0.5, axis=axis) / np.quantile(denominator, 0.5, axis=axis))
