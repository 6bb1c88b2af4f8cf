"""Permutation tests of equal speed: of runs of two sides, and of the log ratios of blocks or nodes.

A permutation test holds its level for noise of any shape that is the same on both sides. A t-test holds it where the
sides' spreads differ. The p of a comparison is the larger of the permutation test's and :data:`T_FACTOR` times the
t-test's.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, combinations
from math import comb, inf, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import stdtr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Pair = tuple[Floats, Floats]
    """Both sides' logarithms in one place, such as a GPU; neither is empty."""

PERMUTATIONS: Final = 10_000
"""Seeded random permutations where there are too many for an exact test."""

MAX_EXACT: Final = 13_000
"""Maximum permutations of an exact test: those of eight runs a side, or of thirteen blocks."""

MAX_PERMUTED: Final = 100
"""Above this many runs on a side, or blocks, only the t-test is used, which the permutation test approaches."""

UNITS_FOR_SIGNS: Final = 8
"""With fewer blocks or nodes than this no p of their signs is 0.01 or less: the smallest of seven is 2 / 2^7."""

T_FACTOR: Final = 3.0
"""With few or skewed values a t-test rejects up to three times as often as it states; docs/comparison.md has the rates
of false verdicts with this factor."""

_SEED: Final = 20_200_813
_ROUNDING: Final = 1e-12
_SMALLEST_VARIANCE: Final = 1e-24
"""Smaller variances of a mean logarithm are rounding."""


def two_sample_p(strata: Sequence[Pair], *, excess: float = 1.0) -> float:
    """Two-sided p of equal mean logarithms in all places; values change sides within their place only.

    The statistic is studentized: the mean difference over its standard error (Janssen 1997). ``excess`` is by how much
    the variance exceeds that of values in random order; the statistic is divided by its root. The p is 1 where a side
    has one run in each place, since its spread is not known.
    """
    freedom = [sum(pair[side].size - 1 for pair in strata) for side in (0, 1)]
    if min(freedom) == 0:
        return 1.0
    as_observed = [np.repeat([[1.0, 0.0]], [below.size, above.size], axis=1) for below, above in strata]
    differences, variances = _moments(strata, as_observed)
    difference, errors = abs(float(differences[0])), variances[:, 0]
    if difference <= _ROUNDING:
        return 1.0
    limit = difference / sqrt(max(float(errors.sum()), _SMALLEST_VARIANCE)) / sqrt(max(1.0, excess))
    # Welch (1947).
    squares = float(np.sum(errors**2 / freedom))
    degrees = float(errors.sum()) ** 2 / squares if squares > 0 else inf
    p_t = _t_p(limit, degrees)
    if max(freedom) > MAX_PERMUTED:
        return p_t
    several = len(strata) > 1
    splits = [
        _random_splits(n.size, m.size, at) if several else _splits(n.size, m.size) for at, (n, m) in enumerate(strata)
    ]
    differences, variances = _moments(strata, splits)
    statistics = np.abs(differences) / np.sqrt(np.maximum(variances.sum(axis=0), _SMALLEST_VARIANCE))
    return max(p_t, float(np.mean(statistics >= limit * (1 - _ROUNDING))))


def student_p(units: Floats) -> float:
    """:data:`T_FACTOR` times the two-sided p of Student's t-test that the mean of ``units`` is 0."""
    if units.size < 2 or not units.any():
        return 1.0
    error = float(np.std(units, ddof=1)) / sqrt(units.size)
    return _t_p(abs(float(units.mean())) / max(error, _ROUNDING), units.size - 1)


def _t_p(statistic: float, degrees: float) -> float:
    # Not from scipy.stats, whose import takes most of a second and 80 MB.
    return min(1.0, T_FACTOR * 2 * float(stdtr(degrees, -statistic)))


def sign_flip_p(values: Floats) -> float:
    """Two-sided p of the sum of ``values`` if their signs are chance (Fisher 1935).

    That is so for the log ratios of blocks in which chance decided which side came first.
    """
    if not values.any():
        return 1.0
    if values.size > MAX_PERMUTED:
        return student_p(values) / T_FACTOR
    sums = np.abs(_flips(values.size) @ values)
    return float(np.mean(sums >= sums[0] * (1 - _ROUNDING)))


def _moments(strata: Sequence[Pair], splits: Sequence[Floats]) -> tuple[Floats, Floats]:
    """The mean difference for each row of ``splits``, and the two sides' parts of its variance, one a row.

    A row marks the values that are taken for the first side's. A side's variance is pooled over the places.
    """
    difference = np.zeros(len(splits[0]))
    squares, freedom, factors = np.zeros((2, len(splits[0]))), np.zeros((2, 1)), np.zeros((2, 1))
    # A place counts more where both sides have many runs.
    sizes = np.array([below.size * above.size / (below.size + above.size) for below, above in strata])
    for weight, pair, marks in zip(sizes / sizes.sum(), strata, splits, strict=True):
        values = np.concatenate(pair)
        values = values - values.mean()
        for side, mark in enumerate((marks, 1.0 - marks)):
            size = pair[side].size
            means = mark @ values / size
            squares[side] += np.maximum(0.0, mark @ values**2 - size * means**2)
            freedom[side] += size - 1
            factors[side] += weight**2 / size
            difference += (weight if side else -weight) * means
    return difference, factors * squares / freedom


@lru_cache(maxsize=2)
def _splits(n: int, m: int) -> Floats:
    """Every choice of ``n`` among ``n + m`` values as a row of 0 and 1, or random ones; first the first ``n``."""
    if comb(n + m, n) > MAX_EXACT:
        return _random_splits(n, m, 0)
    taken = np.fromiter(chain.from_iterable(combinations(range(n + m), n)), np.intp).reshape(-1, n)
    marks = np.zeros((len(taken), n + m))
    np.put_along_axis(marks, taken, 1.0, axis=1)
    return marks


@lru_cache(maxsize=16)
def _random_splits(n: int, m: int, seed: int) -> Floats:
    marks = np.repeat(np.repeat([[1.0, 0.0]], [n, m], axis=1), PERMUTATIONS, axis=0)
    # The first row stays as observed: it is one of the permutations, so no p is 0.
    return np.vstack([marks[:1], np.random.default_rng((_SEED, seed)).permuted(marks[1:], axis=1)])


@lru_cache(maxsize=4)
def _flips(n: int) -> NDArray[Any]:
    """All or :data:`PERMUTATIONS` rows of ``n`` signs; the first has none flipped."""
    if 2**n <= MAX_EXACT:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    signs = np.random.default_rng(_SEED).choice([-1.0, 1.0], (PERMUTATIONS, n))
    signs[0] = 1.0
    return signs
