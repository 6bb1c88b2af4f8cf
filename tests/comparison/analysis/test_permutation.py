from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jobs.comparison.analysis.permutation import (
    MAX_PERMUTED,
    T_FACTOR,
    UNITS_FOR_SIGNS,
    sign_flip_p,
    student_p,
    two_sample_p,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from numpy.typing import NDArray

logs = st.lists(st.floats(-60, 60), min_size=5, max_size=8)


def p_of(*sides: Sequence[float] | NDArray[Any], excess: float = 1.0) -> float:
    below, above = (np.sort(np.asarray(side, float)) for side in sides)
    return two_sample_p([(below, above)], excess=excess)


def studentized(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    variance = np.var(a, axis=axis, ddof=1) / a.shape[axis] + np.var(b, axis=axis, ddof=1) / b.shape[axis]
    return np.asarray((np.mean(a, axis=axis) - np.mean(b, axis=axis)) / np.sqrt(variance))


def test_two_sample_p_of_small_sides_matches_hand_calculation() -> None:
    # Of the 252 ways to halve ten runs, the two that separate them are as far apart as what was seen.
    assert p_of([1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]) == pytest.approx(2 / 252)
    assert p_of([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]) == 1.0
    assert p_of([1.0] * 5, [1.0] * 5) == 1.0
    assert p_of([1.0] * 5, [2.0] * 5) == pytest.approx(2 / 252)


@pytest.mark.parametrize("runs", [(5, 5), (5, 9), (8, 8)])
def test_two_sample_p_of_few_runs_is_exact_or_welch(runs: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(runs))
    one, other = (random.normal(level, 0.05, n) for level, n in zip((0.03, 0), runs, strict=True))
    exact = stats.permutation_test([one, other], studentized, vectorized=True, n_resamples=np.inf).pvalue
    welch = stats.ttest_ind(one, other, equal_var=False).pvalue
    # SciPy doubles the smaller tail; on both sides the tails are nearly the same.
    assert p_of(one, other) == pytest.approx(min(1.0, max(exact, T_FACTOR * welch)), rel=0.05)


def test_two_sample_p_of_unequal_spread_is_that_of_welch() -> None:
    one, other = [0.0, 0.001, 0.002, 0.003, 0.004], [0.02, 0.03, 0.08, 0.12, 0.2]
    assert p_of(one, other) == pytest.approx(T_FACTOR * stats.ttest_ind(one, other, equal_var=False).pvalue)


@settings(max_examples=15, deadline=None)
@given(logs, logs, st.randoms())
def test_two_sample_p_of_shuffled_values_is_equal(one: list[float], other: list[float], random: Random) -> None:
    p = p_of(one, other)
    assert 0 < p <= 1
    for values in (one, other):
        random.shuffle(values)
    assert p_of(one, other) == p


def test_two_sample_p_of_many_runs_is_close_to_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(0.02, 0.05, MAX_PERMUTED + 2), random.normal(0, 0.05, MAX_PERMUTED + 2)
    welch = p_of(one, other)
    assert welch == pytest.approx(T_FACTOR * stats.ttest_ind(one, other, equal_var=False).pvalue)
    monkeypatch.setattr("jobs.comparison.analysis.permutation.MAX_PERMUTED", 2 * MAX_PERMUTED)
    monkeypatch.setattr("jobs.comparison.analysis.permutation.T_FACTOR", 0.0)
    assert p_of(one, other) == pytest.approx(welch / T_FACTOR, abs=0.004)


def test_two_sample_p_of_two_places_takes_no_difference_of_places_for_one_of_sides() -> None:
    slow, fast = np.linspace(0, 0.01, 6), np.linspace(0.5, 0.51, 6)
    # Pooled, 5 of 6 fast runs are of the second side.
    strata = [(slow[:5], slow[5:]), (fast[:1], fast[1:])]
    assert two_sample_p(strata) > 0.05
    assert p_of(np.concatenate([slow[:5], fast[:1]]), np.concatenate([slow[5:], fast[1:]])) < 0.05


def test_two_sample_p_without_repeated_runs_in_a_place_is_one() -> None:
    assert two_sample_p([(np.array([0.0]), np.array([1.0]))] * 6) == 1.0


def test_two_sample_p_of_excess_variance_is_larger() -> None:
    one, other = [0.0, 0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6, 0.7]
    assert p_of(one, other) < p_of(one, other, excess=1.3) < p_of(one, other, excess=2.0)


def test_sign_flip_p_of_blocks_matches_hand_calculation() -> None:
    # Only the two choices with all signs equal have a sum as large.
    assert sign_flip_p(np.arange(1.0, 9.0)) == 2 / 2**8
    # Of 8 choices of 3 signs, 4 have a sum of at least 4.
    assert sign_flip_p(np.array([3.0, 2.0, -1.0])) == 4 / 8
    assert sign_flip_p(np.zeros(9)) == 1.0


def test_units_for_signs_is_the_fewest_that_can_reach_one_percent() -> None:
    assert sign_flip_p(np.ones(UNITS_FOR_SIGNS)) <= 0.01 < sign_flip_p(np.ones(UNITS_FOR_SIGNS - 1))


def test_sign_flip_p_of_many_blocks_is_close_to_exact() -> None:
    values = np.random.default_rng(2).normal(0.5, 1, 13)
    exact = sign_flip_p(values)
    sampled = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    assert exact == pytest.approx(sampled, abs=0.01)


def test_student_p_matches_scipy() -> None:
    values = np.array([0.01, 0.03, 0.02, 0.05])
    assert student_p(values) == pytest.approx(T_FACTOR * stats.ttest_1samp(values, 0).pvalue)
    assert student_p(values[:1]) == 1.0
    assert student_p(np.zeros(4)) == 1.0
    assert student_p(np.full(4, 0.1)) < 1e-6
