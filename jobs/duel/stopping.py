"""When enough blocks are done: a rule that does not look at which framework was faster.

A block's observation is the logarithm of torch's speed over TensorFlow's. If the frameworks are equal, its sign is a
fair coin whatever its magnitude, since the order within the block was drawn by one. A rule that reads only magnitudes
leaves these coins fair, so a sign-flip test after it keeps its level exactly. No correction for the looks is needed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE: Final = 0.90
"""Level of the interval whose half-width is estimated, as in the comparison."""

MIN_BLOCKS: Final = 8
"""With fewer, a two-sided sign-flip test cannot reach p = 0.01: its smallest p is 2 / 2^n."""

CLEAR_EFFECT: Final = 2.0
"""Mean magnitude over the magnitudes' spread from which on the mean is taken for an effect, not for noise.
Without an effect it is 1.3 for normal noise."""


def half_width(log_ratios: Sequence[float]) -> float:
    """The estimated half-width of the interval of the mean of ``log_ratios``, at least two, from magnitudes alone.

    The scale is the root mean square. If an effect is clear, it is the spread of the magnitudes.
    The estimate only says when to stop. The interval of the result is computed from the runs with their signs.
    """
    magnitudes = [abs(value) for value in log_ratios]
    mean, spread = fmean(magnitudes), stdev(magnitudes)
    scale = spread if mean >= CLEAR_EFFECT * spread else math.sqrt(fmean([value * value for value in magnitudes]))
    return _t_quantile(len(magnitudes) - 1) * scale / math.sqrt(len(magnitudes))


@lru_cache
def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 - a duel of a fixed number of blocks does without SciPy

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def is_narrow_enough(log_ratios: Sequence[float], target_percent: float) -> bool:
    """Whether the ratio's interval is about plus or minus ``target_percent`` or less; never before eight blocks."""
    return len(log_ratios) >= MIN_BLOCKS and half_width(log_ratios) <= math.log1p(target_percent / 100)
