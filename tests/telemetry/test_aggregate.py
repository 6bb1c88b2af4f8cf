from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.telemetry.aggregate import ReadingWindow, Series, aggregate, counter_delta, max_in, rate_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

GAPS = st.lists(st.floats(0.01, 0.3), min_size=1, max_size=60)
VALUES = st.floats(-1e6, 1e6)
UP_TO_1_S = ReadingWindow(max_gap_s=1.0)


def readings(times: ArrayLike, values: ArrayLike) -> Series:
    return Series(np.asarray(times, np.float64), np.asarray(values, np.float64))


@st.composite
def series(draw: st.DrawFn) -> Series:
    times = np.cumsum(draw(GAPS))
    return readings(times, [draw(VALUES) for _ in times])


WINDOWS = st.builds(ReadingWindow, st.floats(0.05, 2), st.sampled_from([0.0, 0.1, 1.0]), st.booleans())


@given(samples=series(), start_s=st.floats(0, 5), length_s=st.floats(0.01, 10), window=WINDOWS)
def test_aggregate_any_series_stays_within_the_values(
    samples: Series, start_s: float, length_s: float, window: ReadingWindow
) -> None:
    found = aggregate(samples, [(start_s, start_s + length_s)], window)
    if found is None:
        return
    assert samples.values.min() <= found.mean <= found.max <= samples.values.max()
    assert found.p50 <= found.p95 <= found.max
    assert 0 <= found.coverage_ratio <= 1
    assert 1 <= found.n <= len(samples.times)


@given(gaps=GAPS, value=VALUES)
def test_aggregate_constant_series_gives_the_constant(gaps: list[float], value: float) -> None:
    times = np.cumsum(gaps)
    found = aggregate(readings(times, np.full(len(gaps), value)), [(0.0, float(times[-1]))], UP_TO_1_S)
    assert found is not None
    assert (found.mean, found.p50, found.p95, found.max) == (value, value, value, value)


@given(samples=series(), cut=st.floats(0.1, 0.9))
def test_aggregate_split_phase_pools_to_the_whole(samples: Series, cut: float) -> None:
    end_s = float(samples.times[-1])
    parts = [(0.0, cut * end_s), (cut * end_s, end_s)]
    whole = aggregate(samples, [(0.0, end_s)], UP_TO_1_S)
    pooled = aggregate(samples, parts, UP_TO_1_S)
    assert whole is not None
    assert pooled is not None
    assert pooled.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-3)
    assert pooled.coverage_ratio == pytest.approx(whole.coverage_ratio)
    # Not the median: where two values share the time evenly, rounding decides which of them it is.
    assert pooled.max == whole.max


@given(
    before=VALUES,
    inside=VALUES,
    after=VALUES,
    window_s=st.sampled_from([0.1, 0.5, 1.0]),
    since_previous=st.booleans(),
    shift_s=st.floats(0, 0.1),
)
def test_aggregate_averaging_readings_exclude_neighbouring_phases(
    *, before: float, inside: float, after: float, window_s: float, since_previous: bool, shift_s: float
) -> None:
    """Readings average over the time behind them; a phase of one value must not see its neighbours'."""
    step_s = window_s if since_previous else 0.1
    times = np.arange(1, 200) * step_s + shift_s
    edges = np.array([4.0, 8.0])

    def value_at(time_s: np.ndarray) -> np.ndarray:
        return np.select([time_s < edges[0] - 1e-9, time_s <= edges[1] + 1e-9], [before, inside], after)

    # What a device would say: the mean over the window behind the reading.
    grid = np.linspace(0.0, 1.0, 21)
    values = np.array([value_at(at_s - window_s * grid).mean() for at_s in times])
    found = aggregate(readings(times, values), [(4.0, 8.0)], ReadingWindow(2.0, window_s, since_previous))
    assert found is not None
    assert found.mean == pytest.approx(inside)
    assert found.max == pytest.approx(inside)


def test_aggregate_ramp_gives_the_known_figures() -> None:
    times = np.arange(1, 101) * 0.1
    found = aggregate(readings(times, times), [(0.0, 10.0)], UP_TO_1_S)
    assert found is not None
    # Sample i stands for the 0.1 s before it, so the mean is 0.1 (1 + … + 100) / 100.
    assert found.mean == pytest.approx(5.05)
    assert found.p50 == pytest.approx(5.0)
    assert found.p95 == pytest.approx(9.5)
    assert (found.max, found.n, found.coverage_ratio, found.quality) == (10.0, 100, 1.0, "ok")


def test_aggregate_uneven_sampling_weights_by_time() -> None:
    samples = readings([1.0, 1.1, 2.0], [0.0, 100.0, 0.0])
    found = aggregate(samples, [(0.0, 2.0)], UP_TO_1_S)
    assert found is not None
    assert found.mean == pytest.approx(100 * 0.1 / 2.0)


def test_aggregate_sampling_gap_lowers_coverage() -> None:
    samples = readings([0.5, 8.0], [10.0, 20.0])
    found = aggregate(samples, [(0.0, 8.0)], ReadingWindow(max_gap_s=0.5))
    assert found is not None
    assert found.coverage_ratio == pytest.approx(1.0 / 8)
    assert found.quality == "insufficient"


def test_aggregate_gap_between_averages_is_not_covered() -> None:
    """Readings failed for a minute; the first that came back speaks for its own time only."""
    times = np.concatenate([np.arange(0, 51) * 0.2, 70.0 + np.arange(0, 6) * 0.2])
    values = np.where(times <= 10, 10.0, 90.0)
    found = aggregate(
        readings(times, values), [(0.0, 71.0)], ReadingWindow(max_gap_s=0.6, window_s=0.2, since_previous=True)
    )
    assert found is not None
    assert found.mean < 25
    assert found.coverage_ratio < 0.2
    assert found.quality == "insufficient"


def test_aggregate_readings_outside_the_phase_are_ignored() -> None:
    times = np.arange(0, 100) * 0.1
    values = np.where((times > 3) & (times <= 7), 50.0, 90.0)
    found = aggregate(readings(times, values), [(3.0, 7.0)], UP_TO_1_S)
    assert found is not None
    assert found.max == 50.0


@pytest.mark.parametrize(("count", "length_s"), [(19, 3.0), (40, 2.9)])
def test_aggregate_few_or_short_readings_are_insufficient(count: int, length_s: float) -> None:
    times = np.linspace(length_s / count, length_s, count)
    found = aggregate(readings(times, times), [(0.0, length_s)], UP_TO_1_S)
    assert found is not None
    assert found.quality == "insufficient"


def test_aggregate_short_phases_pooled_are_ok() -> None:
    times = np.arange(0, 200) * 0.1
    intervals = [(float(start), start + 1.0) for start in range(0, 18, 2)]
    one = aggregate(readings(times, times), intervals[:1], UP_TO_1_S)
    pooled = aggregate(readings(times, times), intervals, UP_TO_1_S)
    assert one is not None
    assert pooled is not None
    assert (one.quality, pooled.quality) == ("insufficient", "ok")


def test_aggregate_without_readings_gives_none() -> None:
    empty = readings([], [])
    one = readings([5.0], [1.0])
    assert aggregate(empty, [(0.0, 1.0)], UP_TO_1_S) is None
    assert aggregate(one, [(0.0, 1.0)], UP_TO_1_S) is None
    assert aggregate(one, [(5.0, 5.0)], UP_TO_1_S) is None
    assert aggregate(one, [], UP_TO_1_S) is None
    assert max_in(empty, [(0.0, 1.0)]) is None


def test_counter_delta_between_readings_is_interpolated() -> None:
    times = np.arange(0, 101) * 0.1
    samples = readings(times, 100 * times + 5000)
    assert counter_delta(samples, [(1.23, 4.56)], max_gap_s=0.2) == pytest.approx(100 * (4.56 - 1.23))


@given(cut=st.floats(0.1, 9.9))
def test_counter_delta_split_phase_adds_up(cut: float) -> None:
    times = np.arange(0, 101) * 0.1
    samples = readings(times, times**2)
    whole = counter_delta(samples, [(0.0, 10.0)], max_gap_s=0.2)
    assert counter_delta(samples, [(0.0, cut), (cut, 10.0)], max_gap_s=0.2) == pytest.approx(whole)


def test_counter_delta_without_readings_at_both_ends_gives_none() -> None:
    samples = readings([1.0, 2.0], [0.0, 10.0])
    assert counter_delta(samples, [(0.0, 2.0)], max_gap_s=0.2) is None
    assert counter_delta(samples, [(1.0, 3.0)], max_gap_s=0.2) is None
    assert counter_delta(samples, [(1.0, 2.0), (1.0, 3.0)], max_gap_s=2.0) is None
    # Between two readings too far apart it may have stood still and run.
    far = readings([0.0, 1.0, 100.0, 101.0], [0.0, 1.0, 2.0, 3.0])
    assert counter_delta(far, [(40.0, 41.0)], max_gap_s=2.0) is None
    assert counter_delta(far, [(0.5, 100.5)], max_gap_s=2.0) == pytest.approx(2.0)
    assert counter_delta(readings([], []), [(0.0, 1.0)], max_gap_s=0.2) is None
    assert counter_delta(samples, [], max_gap_s=0.2) is None


def test_counter_delta_reset_counter_gives_none() -> None:
    samples = readings([0.0, 1.0, 2.0], [100.0, 5.0, 10.0])
    assert counter_delta(samples, [(0.0, 2.0)], max_gap_s=0.2) is None


def test_rate_of_counter_gives_growth_per_second() -> None:
    times = np.array([0.0, 0.05, 1.0, 2.0])
    rate = rate_of(readings(times, np.array([0.0, 0.1, 1.0, 4.0])))
    assert rate.times.tolist() == [0.0, 1.0, 2.0]
    assert rate.values.tolist()[1:] == [1.0, 3.0]
    found = aggregate(rate, [(0.0, 2.0)], ReadingWindow(max_gap_s=3.0))
    assert found is not None
    assert (found.mean, found.n) == (2.0, 2)
    assert len(rate_of(readings([], [])).times) == 0


def test_max_in_intervals_ignores_readings_outside() -> None:
    samples = readings(np.arange(10.0), np.arange(10.0))
    assert max_in(samples, [(1.0, 3.0), (5.5, 6.5)]) == 6.0
