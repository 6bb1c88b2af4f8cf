from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.harness.telemetry.aggregate import aggregate, counted

GAPS = st.lists(st.floats(0.01, 0.3), min_size=1, max_size=60)
VALUES = st.floats(-1e6, 1e6)


@st.composite
def series(draw: st.DrawFn) -> list[tuple[float, float]]:
    times = np.cumsum(draw(GAPS))
    return [(float(at_s), draw(VALUES)) for at_s in times]


def _at(times: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    return [(float(at_s), float(value)) for at_s, value in zip(times, values, strict=True)]


@given(samples=series(), start_s=st.floats(0, 5), length_s=st.floats(0.01, 10))
def test_figures_lie_among_the_values(samples: list[tuple[float, float]], start_s: float, length_s: float) -> None:
    found = aggregate(samples, start_s, start_s + length_s, hold_s=1.0)
    if found is None:
        return
    values = [value for _, value in samples]
    assert min(values) <= found.mean <= found.max <= max(values)
    assert found.p50 <= found.p95 <= found.max
    assert 0 <= found.coverage_ratio <= 1
    assert 1 <= found.n <= len(samples)


@given(gaps=GAPS, value=VALUES)
def test_a_constant_is_its_own_mean(gaps: list[float], value: float) -> None:
    times = np.cumsum(gaps)
    found = aggregate(_at(times, np.full(len(gaps), value)), 0.0, float(times[-1]), hold_s=1.0)
    assert found is not None
    assert (found.mean, found.p50, found.p95, found.max) == (value, value, value, value)


@given(samples=series(), cut=st.floats(0.1, 0.9))
def test_the_parts_of_a_phase_make_up_the_whole(samples: list[tuple[float, float]], cut: float) -> None:
    end_s = samples[-1][0]
    middle_s = cut * end_s
    spans = [(0.0, middle_s), (middle_s, end_s)]
    whole = aggregate(samples, 0.0, end_s, hold_s=1.0)
    parts = [aggregate(samples, start, end, hold_s=1.0) for start, end in spans]
    assert whole is not None
    covered = [
        (part.mean, part.coverage_ratio * (end - start))
        for part, (start, end) in zip(parts, spans, strict=True)
        if part is not None
    ]
    total = sum(weight for _, weight in covered)
    assert total == pytest.approx(whole.coverage_ratio * end_s)
    assert sum(mean * weight for mean, weight in covered) == pytest.approx(whole.mean * total, rel=1e-6, abs=1e-3)


def test_a_ramp_has_the_known_answer() -> None:
    times = np.arange(1, 101) * 0.1
    found = aggregate(_at(times, times), 0.0, 10.0, hold_s=1.0)
    assert found is not None
    # Sample i stands for the 0.1 s before it, so the mean is 0.1 (1 + … + 100) / 100.
    assert found.mean == pytest.approx(5.05)
    assert found.p50 == pytest.approx(5.0)
    assert found.p95 == pytest.approx(9.5)
    assert (found.max, found.n, found.coverage_ratio, found.quality) == (10.0, 100, 1.0, "ok")


def test_samples_weigh_by_the_time_they_stand_for() -> None:
    found = aggregate([(1.0, 0.0), (1.1, 100.0), (2.0, 0.0)], 0.0, 2.0, hold_s=1.0)
    assert found is not None
    assert found.mean == pytest.approx(100 * 0.1 / 2.0)


def test_a_gap_in_the_sampling_is_not_covered() -> None:
    found = aggregate([(0.5, 10.0), (8.0, 20.0)], 0.0, 8.0, hold_s=0.5)
    assert found is not None
    assert found.coverage_ratio == pytest.approx(1.0 / 8)
    assert found.quality == "insufficient"


def test_what_is_outside_the_phase_does_not_count() -> None:
    times = np.arange(0, 100) * 0.1
    values = np.where((times > 3) & (times <= 7), 50.0, 90.0)
    found = aggregate(_at(times, values), 3.0, 7.0, hold_s=1.0)
    assert found is not None
    assert found.max == 50.0


@pytest.mark.parametrize(("count", "length_s", "quality"), [(19, 3.0, "insufficient"), (40, 2.9, "insufficient")])
def test_too_little_is_said_to_be_too_little(count: int, length_s: float, quality: str) -> None:
    times = np.linspace(length_s / count, length_s, count)
    found = aggregate(_at(times, times), 0.0, length_s, hold_s=1.0)
    assert found is not None
    assert found.quality == quality


def test_no_sample_is_no_figure() -> None:
    assert aggregate([], 0.0, 1.0, hold_s=1.0) is None
    assert aggregate([(5.0, 1.0)], 0.0, 1.0, hold_s=1.0) is None
    assert aggregate([(0.5, 1.0)], 1.0, 1.0, hold_s=1.0) is None


def test_a_counter_is_read_at_the_phase_s_ends() -> None:
    times = np.arange(0, 101) * 0.1
    samples = _at(times, 100 * times + 5000)
    assert counted(samples, 1.23, 4.56, hold_s=0.2) == pytest.approx(100 * (4.56 - 1.23))


@given(cut=st.floats(0.1, 9.9))
def test_counts_of_the_parts_add_up(cut: float) -> None:
    times = np.arange(0, 101) * 0.1
    samples = _at(times, times**2)
    whole = counted(samples, 0.0, 10.0, hold_s=0.2)
    parts = [counted(samples, 0.0, cut, hold_s=0.2), counted(samples, cut, 10.0, hold_s=0.2)]
    assert None not in parts
    assert sum(part for part in parts if part is not None) == pytest.approx(whole)


def test_a_counter_without_samples_at_both_ends_is_unknown() -> None:
    samples = [(1.0, 0.0), (2.0, 10.0)]
    assert counted(samples, 0.0, 2.0, hold_s=0.2) is None
    assert counted(samples, 1.0, 3.0, hold_s=0.2) is None
    assert counted([], 0.0, 1.0, hold_s=0.2) is None


def test_a_counter_that_was_reset_is_unknown() -> None:
    assert counted([(0.0, 100.0), (1.0, 5.0), (2.0, 10.0)], 0.0, 2.0, hold_s=0.2) is None
