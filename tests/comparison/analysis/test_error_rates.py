"""How often a verdict is wrong: on sides that are the same, and on sides that truly differ. Seeded.

``make test-long`` simulates the number of comparisons that docs/comparison.md states its rates for, and checks the
rates themselves. ``make test`` simulates fewer. Its bounds then are those that a program with just the stated rate
passes with a probability of 99.9 % (binomial distribution).
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.support.programs import rounds
from tests.support.simulated_verdicts import COMPARISONS, verdicts

TRIED = rounds(200, COMPARISONS)
"""200 detect a program that calls 7 % of equal sides faster, or misses 15 % of a difference of 10 %, in 9 of 10."""


def max_count(rate: float) -> int:
    return int(rate * TRIED if TRIED == COMPARISONS else stats.binom.ppf(0.999, TRIED, rate))


def min_count(rate: float) -> int:
    return TRIED - max_count(1 - rate)


@pytest.mark.slow
def test_false_verdict_on_equal_sides_in_at_most_one_percent() -> None:
    said = verdicts(1.0, seed=1, comparisons=TRIED)
    assert said.count("first") + said.count("second") <= max_count(0.01)


@pytest.mark.slow
def test_verdict_on_ten_percent_less_speed_is_found_in_at_least_95_percent() -> None:
    said = verdicts(0.9, seed=1, comparisons=TRIED)
    assert said.count("second") >= min_count(0.95)
    assert said.count("first") == 0


@pytest.mark.slow
def test_verdict_on_ten_percent_more_speed_is_found_in_at_least_85_percent() -> None:
    said = verdicts(1.1, seed=1, comparisons=TRIED)
    assert said.count("first") >= min_count(0.85)
    assert said.count("second") == 0


def test_reduced_numbers_detect_clearly_higher_rates() -> None:
    """The power that :data:`TRIED` states."""
    if TRIED < COMPARISONS:
        assert stats.binom.sf(max_count(0.01), TRIED, 0.07) > 0.9
        assert stats.binom.cdf(min_count(0.95) - 1, TRIED, 0.85) > 0.9
