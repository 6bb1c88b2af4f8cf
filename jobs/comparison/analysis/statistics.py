"""The statistics of a comparison: summaries, the ratio of two sides with its interval, and the rule of the verdict."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy.special import stdtrit

from jobs.comparison.input.metrics import HEADLINE, Missing
from jobs.comparison.schema import MetricRatio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jobs.choices import FrameworkName
    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import VerdictKind
    from jobs.comparison.schema_base import MetricName

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.90
"""Level of the intervals. A 90 % interval inside the margins is equivalence at 5 %, by two one-sided tests
(Schuirmann 1987)."""

ALPHA: Final = 0.01
"""Level of one comparison's test: the largest rate of false positives."""

FAMILYWISE_ALPHA: Final = 0.05
"""Level after Holm's correction: the rate of tables with any false positive."""

UNSTABLE_SPREAD: Final = 0.10
"""A side whose interquartile range is over this share of its median is called unstable."""

RUNS_FOR_A_VERDICT: Final = 5
SMALLEST_EFFECT: Final = 1.03
"""Minimum ratio (or its inverse) of a *faster* verdict; within it both sides are *equivalent*."""

_SEED: Final = 20_200_813
_MAX_RELATIVE_IQR: Final = 1e6
_BOUNDS: Final = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


class Summary(NamedTuple):
    """``n`` observations: their median, quartiles (linear interpolation) and range, in their own unit."""

    n: int
    median: float
    q1: float
    q3: float
    minimum: float
    maximum: float


class Significance(NamedTuple):
    """``p`` of a permutation test, and ``p_corrected`` by Holm's method over all tests of a table."""

    p: float
    p_corrected: float


def observed(runs: Iterable[RunSummary], metric: Metric = HEADLINE) -> list[float]:
    """The values of ``metric`` in the runs that count for it, smallest first."""
    values = (run.measured(metric.name) for run in runs if metric.counts(run.status))
    return sorted(value for value in values if not isinstance(value, Missing))


def median(values: Sequence[float]) -> float | None:
    """The median, ``None`` where there are no values."""
    # np.median adds the middle two, which can overflow where np.quantile interpolates.
    return float(np.quantile(values, 0.5)) if values else None


def summarise(values: Sequence[float]) -> Summary | None:
    """The summary of ``values``, ``None`` where there are none."""
    if not values:
        return None
    # Sums of equal values in another order may round differently, so the values are sorted first.
    minimum, q1, middle, q3, maximum = (float(value) for value in np.quantile(sorted(values), [0, 0.25, 0.5, 0.75, 1]))
    return Summary(n=len(values), median=middle, q1=q1, q3=q3, minimum=minimum, maximum=maximum)


def relative_iqr(values: Sequence[float]) -> float | None:
    """The interquartile range as a share of the median; ``None`` with too few values or a median of 0 or less."""
    summary = summarise(values)
    if summary is None or summary.n < RUNS_FOR_A_VERDICT or summary.median <= 0:
        return None
    return min((summary.q3 - summary.q1) / summary.median, _MAX_RELATIVE_IQR)


def ratio_of_medians(
    sides: Mapping[FrameworkName, Sequence[float]], metric: MetricName = HEADLINE.name
) -> MetricRatio | None:
    """The :func:`median_ratio` of the second side to the first."""
    denominator, numerator = sides
    found = median_ratio(sides[numerator], sides[denominator])
    if found is None:
        return None
    return MetricRatio(metric=metric, numerator=numerator, denominator=denominator, **found._asdict())


class MedianRatio(NamedTuple):
    """A ratio of medians. Its interval is ``None`` where a side has too few observations."""

    ratio: float
    low: float | None = None
    high: float | None = None


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> MedianRatio | None:
    """The ratio of the medians, with its interval where both sides have enough observations.

    The interval is the percentile bootstrap of :data:`RESAMPLES` seeded resamples (Efron 1979), so equal values always
    give the same one. ``None`` where a side is empty, a value is not positive, or a ratio is past a float's range.
    """
    above, below = (np.sort(np.asarray(side, float)) for side in (numerator, denominator))
    if min(above.size, below.size) == 0 or min(above[0], below[0]) <= 0:
        return None
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        values = [float(np.quantile(above, 0.5) / np.quantile(below, 0.5))]
        if min(above.size, below.size) >= RUNS_FOR_A_VERDICT:
            random = np.random.default_rng(_SEED)
            ratios = _resampled_medians(above, random) / _resampled_medians(below, random)
            values += [float(bound) for bound in np.quantile(ratios, _BOUNDS)]
    if not all(isfinite(value) and value > 0 for value in values):
        return None
    return MedianRatio(*values)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the median of ``values``, by the same bootstrap."""
    medians = _resampled_medians(np.sort(np.asarray(values, float)), np.random.default_rng(_SEED))
    low, high = np.quantile(medians, _BOUNDS)
    return float(low), float(high)


def mean_interval(values: NDArray[Any]) -> tuple[float, float, float]:
    """The mean of two or more ``values``, and Student's interval of it."""
    quantile = float(stdtrit(values.size - 1, (1 + CONFIDENCE) / 2))
    middle, half = float(values.mean()), quantile * float(np.std(values, ddof=1)) / sqrt(values.size)
    return middle, middle - half, middle + half


def _resampled_medians(ordered: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Medians of :data:`RESAMPLES` bootstrap resamples of the ascending values ``ordered``.

    A resample takes the values at ``n`` uniform draws, so its median is at their middle order statistics. Only those
    are drawn. The k-th of ``n`` is Beta(k, n-k+1); the next is the smallest of ``n-k`` uniform draws above it,
    Beta(1, n-k) (David and Nagaraja 2003, Order Statistics).
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


def holm_correction(p_values: Sequence[float | None]) -> list[Significance | None]:
    """Each p with Holm's (1979) correction over all p values, which bounds the family-wise error."""
    ranked = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    corrected: list[Significance | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        corrected[at] = Significance(p=p, p_corrected=highest)
    return corrected


def verdict_kind(runs: tuple[int, int], ratio: MetricRatio | None, significance: Significance | None) -> VerdictKind:
    """The verdict on two sides with ``runs`` observations each.

    *faster* (or slower: the ratio says which) needs an interval without 1, an effect of 3 %, and a permutation test
    below its level both before and after Holm's correction; *equivalent* needs an interval inside 3 % either way;
    anything else is *inconclusive*.
    """
    if runs == (1, 1):
        return "single_observation"
    if min(runs) < RUNS_FOR_A_VERDICT:
        return "too_few_runs"
    if ratio is None or ratio.low is None or ratio.high is None:
        return "inconclusive"
    if ratio.low >= 1 / SMALLEST_EFFECT and ratio.high <= SMALLEST_EFFECT:
        return "equivalent"
    excludes_one = ratio.low > 1 or ratio.high < 1
    large = max(ratio.ratio, 1 / ratio.ratio) >= SMALLEST_EFFECT
    significant = significance is not None and significance.p <= ALPHA and significance.p_corrected <= FAMILYWISE_ALPHA
    return "faster" if excludes_one and large and significant else "inconclusive"
