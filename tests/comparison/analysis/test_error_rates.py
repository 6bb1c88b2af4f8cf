"""How often a verdict is wrong on equal sides, and finds a true difference, by how the runs came about. Seeded.

``make test-long`` simulates the comparisons that docs/comparison.md states its rates for, and checks the rates
themselves. ``make test`` simulates fewer, under each row's first conditions. Its bounds then are those that a program
with just the stated rate passes with a probability of 99.9 % (binomial distribution).
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.support.programs import rounds
from tests.support.simulated_verdicts import COMPARISONS, FALSE_NOISE, POWER_NOISE, RUNS, SCENARIOS, Scenario, verdicts

TRIED = rounds(200, COMPARISONS)
"""200 detect a program that calls 7 % of equal sides faster, or misses 15 % where 5 % are allowed, in 9 of 10."""

IS_SAMPLE = TRIED < COMPARISONS
CONFOUNDED = {
    "one framework after the other, noise with memory",
    "the same, and a drift of 10 %",
    "one node a side, nodes differ by 5 %",
}
"""Rows whose unblocked runs allow no verdict."""


def max_count(rate: float) -> int:
    return int(stats.binom.ppf(0.999, TRIED, rate) if IS_SAMPLE else rate * TRIED)


def min_count(rate: float) -> int:
    return TRIED - max_count(1 - rate)


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "unblocked"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_false_verdict_on_equal_sides_in_at_most_one_percent(scenario: Scenario, *, blocked: bool) -> None:
    for at, conditions in enumerate(scenario.conditions[: 1 if IS_SAMPLE else None]):
        for runs in RUNS[blocked][-1 if IS_SAMPLE else 0 :]:
            said = verdicts(
                conditions,
                speed=1.0,
                seed=(1, at),
                blocked=blocked,
                runs=runs,
                noise=FALSE_NOISE,
                comparisons=TRIED,
            )
            assert said["first"] + said["second"] <= max_count(0.01), (conditions, runs)
            if not blocked and scenario.name in CONFOUNDED:
                assert said["confounded"] == TRIED


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "unblocked"])
@pytest.mark.parametrize(("speed", "found"), [(1.05, 0.8), (1.1, 0.98), (0.95, 0.8), (0.9, 0.98)])
def test_verdict_on_true_difference_is_found_by_ten_runs(speed: float, found: float, *, blocked: bool) -> None:
    in_turn = SCENARIOS[0].conditions[0]
    said = verdicts(in_turn, speed=speed, seed=1, blocked=blocked, runs=10, noise=POWER_NOISE, comparisons=TRIED)
    right, wrong = ("second", "first") if speed > 1 else ("first", "second")
    assert said[right] >= min_count(found)  # type: ignore[index]
    assert said[wrong] == 0  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(("speed", "found"), [(0.9, 0.85), (1.1, 0.75)])
def test_verdict_on_true_difference_is_found_under_noise_of_five_percent(speed: float, found: float) -> None:
    """Less often than without the t-test: 95 % and 85 % were the bounds then."""
    in_turn = SCENARIOS[0].conditions[0]
    said = verdicts(in_turn, speed=speed, seed=1, blocked=False, runs=10, noise=FALSE_NOISE, comparisons=TRIED)
    right, wrong = ("second", "first") if speed > 1 else ("first", "second")
    assert said[right] >= min_count(found)  # type: ignore[index]
    assert said[wrong] == 0  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.02])
def test_verdict_on_ten_percent_more_speed_is_found_by_eight_blocks(noise: float) -> None:
    said = verdicts(SCENARIOS[0].conditions[0], speed=1.1, seed=1, blocked=True, runs=8, noise=noise, comparisons=TRIED)
    assert said["second"] >= min_count(0.95)


def test_reduced_numbers_detect_clearly_higher_rates() -> None:
    """The power that :data:`TRIED` states."""
    if IS_SAMPLE:
        assert stats.binom.sf(max_count(0.01), TRIED, 0.07) > 0.9
        assert stats.binom.cdf(min_count(0.95) - 1, TRIED, 0.85) > 0.9
