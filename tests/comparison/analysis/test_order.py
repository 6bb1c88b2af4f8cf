from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from jobs.comparison.analysis.order import MAX_DRIFT_EXCESS, MAX_MEMORY_EXCESS, Started, follow, order_excess, turns
from tests.support.reports import STARTED


def place(sides: str) -> list[Started]:
    """Runs a minute apart; B is the second side. A digit after a side: that many minutes after the first run."""
    return [Started(STARTED + timedelta(minutes=at), side == "B") for at, side in enumerate(sides)]


@pytest.mark.parametrize("sides", ["ABABABABAB", "ABBAABBAAB", "ABABABABABABABABABAB", "AABBAABBAABBAABBAABB"])
def test_order_excess_of_sides_in_turn_is_about_one_or_less(sides: str) -> None:
    assert order_excess([place(sides)]).largest < 1.05


@pytest.mark.parametrize(
    "sides", ["AAAAABBBBB", "AAABABABBB", "AAAAABBBBBAAAAABBBBB", "AAAAABABABABABABBBBB", "BBBBBAAAAAAAAAABBBBB"]
)
def test_order_excess_of_long_stretches_is_too_large(sides: str) -> None:
    excess = order_excess([place(sides)])
    assert excess.memory > MAX_MEMORY_EXCESS or excess.drift > MAX_DRIFT_EXCESS


@pytest.mark.parametrize("correlation", [0.4, 0.9])
def test_order_excess_bounds_the_variance_of_simulated_noise(correlation: float) -> None:
    random = np.random.default_rng(3)
    sides = "AABABBABBAAB"
    second = np.array([side == "B" for side in sides])
    noise = random.normal(0, 1, (40_000, second.size))
    for at in range(1, second.size):
        noise[:, at] = correlation * noise[:, at - 1] + np.sqrt(1 - correlation**2) * noise[:, at]
    here = np.var(noise[:, second].mean(axis=1) - noise[:, ~second].mean(axis=1))
    shuffled = random.permuted(noise, axis=1)
    usual = np.var(shuffled[:, second].mean(axis=1) - shuffled[:, ~second].mean(axis=1))
    assert here / usual <= order_excess([place(sides)]).memory * 1.03


def test_order_excess_of_runs_that_started_together_is_none() -> None:
    together = [Started(STARTED, side == "B") for side in "AAAAABBBBB"]
    assert order_excess([together]).largest == 0.0


def test_order_excess_of_same_order_on_every_node_is_too_large() -> None:
    excess = order_excess([place("AB")] * 6)
    assert excess.drift > MAX_DRIFT_EXCESS
    assert excess.later
    assert order_excess([place("AB"), place("BA")] * 3).largest <= 1.0


def test_follow_only_if_all_places_agree() -> None:
    assert follow([place("AAB"), place("ABB")])
    assert follow([place("BBA")])
    assert not follow([place("AAB"), place("BA")])
    assert not follow([place("ABA")])


def test_turns_counts_changes_in_order_of_start() -> None:
    assert turns(place("AABBA")[::-1]) == 2
