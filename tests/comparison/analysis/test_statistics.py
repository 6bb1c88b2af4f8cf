from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.comparison.analysis.statistics import (
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    Significance,
    holm_correction,
    ratio_of_medians,
    relative_iqr,
    summarise,
    verdict_kind,
)
from jobs.comparison.schema import MetricRatio

if TYPE_CHECKING:
    from random import Random

speeds = st.floats(1.0, 1e7)
samples = st.lists(speeds, min_size=1, max_size=12)
enough = st.lists(speeds, min_size=RUNS_FOR_A_VERDICT, max_size=12)


SURE = Significance(p=0.001, p_corrected=0.001)


def ratio(low: float | None, middle: float, high: float | None) -> MetricRatio:
    return MetricRatio(
        metric="steady_images_per_s", numerator="torch", denominator="tensorflow", ratio=middle, low=low, high=high
    )


def torch_over_tensorflow(torch: list[float], tensorflow: list[float]) -> MetricRatio | None:
    return ratio_of_medians({"tensorflow": tensorflow, "torch": torch})


def test_summary_without_values_is_none() -> None:
    assert summarise([]) is None


def test_summary_of_four_values_matches_hand_calculation() -> None:
    summary = summarise([5.0, 1.0, 2.0, 4.0])
    assert summary is not None
    assert (summary.n, summary.minimum, summary.q1, summary.median, summary.q3, summary.maximum) == (
        4, 1.0, 1.75, 3.0, 4.25, 5.0,
    )  # fmt: skip


@given(samples, st.randoms())
def test_summary_of_shuffled_values_is_equal_and_ordered(values: list[float], random: Random) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    summary = summarise(values)
    assert summary == summarise(shuffled)
    assert summary is not None
    assert summary.minimum <= summary.q1 <= summary.median <= summary.q3 <= summary.maximum
    assert summary.median == pytest.approx(statistics.median(values))


@settings(max_examples=25, deadline=None)
@given(enough, enough, st.randoms())
def test_ratio_of_shuffled_values_is_equal_and_within_extremes(
    above: list[float], below: list[float], random: Random
) -> None:
    found = torch_over_tensorflow(above, below)
    for values in (above, below):
        random.shuffle(values)
    assert found == torch_over_tensorflow(above, below)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    least, most = min(above) / max(below), max(above) / min(below)
    assert least * (1 - 1e-12) <= found.low <= found.high <= most * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(enough, enough, st.sampled_from([0.25, 2.0, 1024.0]))
def test_ratio_in_another_unit_is_equal(above: list[float], below: list[float], factor: float) -> None:
    scaled = torch_over_tensorflow([factor * value for value in above], [factor * value for value in below])
    assert scaled == torch_over_tensorflow(above, below)


def test_ratio_of_constant_speeds_has_interval_of_zero_width() -> None:
    assert torch_over_tensorflow([12.0] * 5, [10.0] * 5) == ratio(1.2, 1.2, 1.2)


@given(st.lists(speeds, min_size=1, max_size=RUNS_FOR_A_VERDICT - 1), samples)
def test_ratio_of_too_few_runs_has_no_interval(few: list[float], others: list[float]) -> None:
    found = torch_over_tensorflow(few, others)
    assert found is not None
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(
    ("above", "below"),
    [([], [1.0]), ([1.0], []), ([1.0], [0.0]), ([0.0], [1.0]), ([1.0] * 5, [0.0, 1.0, 1.0, 1.0, 1.0])],
)
def test_ratio_of_empty_or_zero_side_is_none(above: list[float], below: list[float]) -> None:
    assert torch_over_tensorflow(above, below) is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, allow_infinity=False, allow_nan=False), min_size=1, max_size=6),
    st.lists(st.floats(0, allow_infinity=False, allow_nan=False), min_size=1, max_size=6),
)
def test_ratio_of_extreme_values_is_finite_or_none(above: list[float], below: list[float]) -> None:
    found = torch_over_tensorflow(above, below)
    summary = summarise(above)
    assert summary is not None
    assert math.isfinite(summary.median)
    assert math.isfinite(relative_iqr(above) or 0.0)
    if found is not None:
        assert all(
            bound is None or (math.isfinite(bound) and bound > 0) for bound in (found.ratio, found.low, found.high)
        )


@pytest.mark.parametrize(
    ("runs", "comparison", "verdict"),
    [
        ((1, 1), ratio(None, 2, None), "single_observation"),
        ((1, 5), ratio(None, 2, None), "too_few_runs"),
        ((0, 5), None, "too_few_runs"),
        ((4, 9), ratio(None, 2, None), "too_few_runs"),
        ((5, 5), ratio(1.05, 1.1, 1.2), "faster"),
        ((5, 5), ratio(0.8, 0.9, 0.95), "faster"),
        ((5, 5), ratio(0.98, 1.0, 1.02), "equivalent"),
        ((5, 5), ratio(1.01, 1.02, 1.025), "equivalent"),
        ((5, 5), ratio(0.9, 1.2, 1.4), "inconclusive"),
        ((5, 5), ratio(1.0, 1.2, 1.4), "inconclusive"),
        ((5, 5), ratio(1.01, 1.02, 1.2), "inconclusive"),
        ((5, 5), ratio(1.01, SMALLEST_EFFECT, 1.2), "faster"),
        ((5, 5), None, "inconclusive"),
    ],
)
def test_judge_by_runs_and_interval_gives_verdict(
    runs: tuple[int, int], comparison: MetricRatio | None, verdict: str
) -> None:
    assert verdict_kind(runs, comparison, SURE) == verdict


@given(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0.5, 2)).map(sorted))
def test_judge_of_inverse_ratio_gives_same_verdict(bounds: list[float]) -> None:
    low, middle, high = bounds
    # A bound on the edge itself may fall either side of it when it is inverted.
    edges = (1.0, SMALLEST_EFFECT, 1 / SMALLEST_EFFECT)
    if any(math.isclose(bound, edge, rel_tol=1e-9) for bound in bounds for edge in edges):
        return
    assert verdict_kind((5, 5), ratio(low, middle, high), SURE) == verdict_kind(
        (5, 5), ratio(1 / high, 1 / middle, 1 / low), SURE
    )


@pytest.mark.parametrize(
    ("significance", "verdict"),
    [
        (Significance(p=0.01, p_corrected=0.05), "faster"),
        (Significance(p=0.011, p_corrected=0.011), "inconclusive"),
        (Significance(p=0.009, p_corrected=0.051), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_judge_faster_needs_p_and_corrected_p_below_their_levels(
    significance: Significance | None, verdict: str
) -> None:
    assert verdict_kind((5, 5), ratio(1.05, 1.1, 1.2), significance) == verdict


def test_holm_correction_of_three_matches_hand_calculation() -> None:
    found = holm_correction([0.01, None, 0.04, 0.03])
    assert [None if one is None else pytest.approx(one.p_corrected) for one in found] == [0.03, None, 0.06, 0.06]
    assert [one and one.p for one in found] == [0.01, None, 0.04, 0.03]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_correction_never_lowers_p_and_keeps_order(p_values: list[float]) -> None:
    found = sorted((one.p, one.p_corrected) for one in holm_correction(p_values) if one is not None)
    assert len(found) == len(p_values)
    assert all(p <= p_corrected <= 1 for p, p_corrected in found)
    assert [p_corrected for _, p_corrected in found] == sorted(p_corrected for _, p_corrected in found)


@pytest.mark.parametrize("runs", [(5, 5), (6, 9), (10, 10), (201, 20), (300, 300)])
def test_interval_of_ratio_is_that_of_whole_resamples(runs: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(runs))
    above, below = (random.normal(level, 5, n) for level, n in zip((110, 100), runs, strict=True))
    found = torch_over_tensorflow(above.tolist(), below.tolist())
    medians = [np.median(random.choice(side, (20_000, side.size)), axis=1) for side in (above, below)]
    ratios = medians[0] / medians[1]
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    # 0.01 is over three standard errors of a share of 5 % among 10,000 and 20,000 resamples. A bound may be an atom.
    for bound, share in ((found.low, 0.05), (found.high, 0.95)):
        assert np.mean(ratios < bound * (1 - 1e-9)) <= share + 0.01
        assert np.mean(ratios <= bound * (1 + 1e-9)) >= share - 0.01
