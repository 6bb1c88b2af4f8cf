"""Tests of a shift between two small samples, by medians and a scale that a disturbed value does not change.

The distribution of such a statistic has no formula. It is simulated for normal noise, seeded, so that the level is met
for each sample size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import stdtr, stdtrit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TRIMMED_RATIO: Final = 0.2
"""Share of values that the scale leaves out, at least one: those that are furthest from the median."""

_SAMPLES: Final = 100_000
_MAX_SIMULATED: Final = 40
"""Beyond this sample size the standardised statistic hardly depends on it."""
_SEED: Final = 20_200_813
_VALUES_AT_ONCE: Final = 250_000


def robust_scale(values: Sequence[float]) -> float:
    """The standard deviation, estimated without the values furthest from the median.

    It is unbiased for normal values. Needs three values or more.
    """
    array = np.asarray(values, float)
    return float(trimmed_deviation(array[None, :])[0] / _bias(min(array.size, _MAX_SIMULATED)))


def median_variance(n: int) -> float:
    """The variance of the median of ``n`` normal values, in units of theirs: at most pi / 2n."""
    return (1.0 if n <= 2 else pi / 2) / n


@dataclass(frozen=True)
class Shift:
    """A difference of two locations, and its standard ``error``.

    ``sizes`` are the samples' sizes where the error comes from :func:`robust_scale` of the first; otherwise the
    statistic follows Student's t with ``degrees`` of freedom.
    """

    change: float
    error: float
    sizes: tuple[int, int] | None = None
    degrees: float = float("inf")

    def p_value(self, direction: int) -> float:
        """One-sided p: how often chance alone moves this far in ``direction`` (1 up, -1 down)."""
        if self.error == 0:
            return 0.0 if self.change * direction > 0 else 1.0
        statistic = self.change * direction / self.error
        if self.sizes is None:
            return float(stdtr(self.degrees, -statistic))
        reference = _reference(*self.sizes)
        beyond = (reference.size - int(np.searchsorted(reference, abs(statistic)))) / (2 * reference.size)
        # A simulation shows no probability smaller than one of its samples.
        beyond = max(beyond, 1 / (2 * reference.size))
        return beyond if statistic > 0 else 1 - beyond

    def distance(self, level: float) -> float:
        """The change whose one-sided p is ``level``, at most 0.5."""
        if self.sizes is None:
            return float(-stdtrit(self.degrees, level)) * self.error
        reference = _reference(*self.sizes)
        return float(reference[min(reference.size - 1, int((1 - 2 * level) * reference.size))]) * self.error


def trimmed_deviation(rows: NDArray[Any], trimmed_ratio: float = TRIMMED_RATIO) -> NDArray[Any]:
    """The standard deviation of each row without the values furthest from its median."""
    count = kept(rows.shape[1], trimmed_ratio)

    def deviation(part: NDArray[Any]) -> NDArray[Any]:
        distances = np.abs(part - np.median(part, axis=1, keepdims=True))
        inside = np.argpartition(distances, count - 1, axis=1)[:, :count]
        return np.asarray(np.take_along_axis(part, inside, axis=1).std(axis=1, ddof=1))

    # Each step copies its rows; of all at once these copies would be most of a merge's memory.
    return np.concatenate([deviation(part) for part in np.array_split(rows, 1 + rows.size // _VALUES_AT_ONCE)])


def kept(n: int, trimmed_ratio: float = TRIMMED_RATIO) -> int:
    """How many of ``n`` values are not trimmed."""
    return n - max(1, int(trimmed_ratio * n))


@lru_cache(maxsize=64)
def _normal(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Median and trimmed deviation of each simulated sample of ``n`` normal values."""
    rows = np.random.default_rng([_SEED, n]).standard_normal((_SAMPLES, n))
    return np.median(rows, axis=1), trimmed_deviation(rows)


@lru_cache(maxsize=64)
def _bias(n: int) -> float:
    return float(_normal(n)[1].mean())


@lru_cache(maxsize=64)
def _reference(n: int, k: int) -> NDArray[Any]:
    """Sorted sizes of the standardised shift between equal samples of ``n`` and ``k``, the scale from the first."""
    n, k = min(n, _MAX_SIMULATED), min(k, _MAX_SIMULATED)
    medians, deviations = _normal(n)
    others = np.median(np.random.default_rng([_SEED, n, k, 1]).standard_normal((_SAMPLES, k)), axis=1)
    error = deviations / _bias(n) * np.sqrt(1 / n + 1 / k)
    return np.sort(np.abs(others - medians) / error)
