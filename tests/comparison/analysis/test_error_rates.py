"""How often a verdict is wrong: on sides that are the same, and on sides that truly differ. Seeded."""

from __future__ import annotations

import pytest

from tests.support.programs import rounds
from tests.support.simulated_verdicts import COMPARISONS, verdicts

TRIED = rounds(200, COMPARISONS)
FOUND_AT_LEAST = 0.95 if TRIED == COMPARISONS else 0.92
"""A sample of 200 may fall 3 % short of the share by chance: two standard deviations."""


@pytest.mark.slow
def test_of_sides_that_are_the_same_at_most_one_in_a_hundred_is_called_faster() -> None:
    said = verdicts(1.0, seed=1, comparisons=TRIED)
    assert said.count("first") + said.count("second") <= 0.01 * TRIED


@pytest.mark.slow
def test_ten_percent_less_speed_is_found_in_at_least_95_of_a_hundred() -> None:
    said = verdicts(0.9, seed=1, comparisons=TRIED)
    assert said.count("second") >= FOUND_AT_LEAST * TRIED
    assert said.count("first") == 0


@pytest.mark.slow
def test_ten_percent_more_speed_which_is_less_of_a_difference_is_never_turned_round() -> None:
    said = verdicts(1.1, seed=1, comparisons=TRIED)
    assert said.count("first") >= 0.85 * TRIED
    assert said.count("second") == 0
