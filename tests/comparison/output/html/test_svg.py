from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.input.metrics import MAX_MAGNITUDE
from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import subsample

VALUES = st.lists(
    st.floats(1 / MAX_MAGNITUDE, MAX_MAGNITUDE) | st.floats(-MAX_MAGNITUDE, -1 / MAX_MAGNITUDE) | st.just(0.0),
    min_size=1,
)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 15.24], ["0", "5", "10", "15"]),
        ([10_000, 12_370], ["10,000", "10,500", "11,000", "11,500", "12,000"]),
        ([0, 1], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0, 1.1], ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        ([-0.4, 0.4], ["-0.4", "-0.2", "0.0", "0.2", "0.4"]),
        ([0, 4e12], ["0", "1e+12", "2e+12", "3e+12", "4e+12"]),
        ([0, 0, 0], ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([1e9, 1e9 + 5e4], ["1e+09", "1.00001e+09", "1.00002e+09", "1.00003e+09", "1.00004e+09", "1.00005e+09"]),
        ([0.95, 0.950004], ["0.95", "0.950001", "0.950002", "0.950003", "0.950004"]),
    ],
)
def test_linear_scale_labels_round_numbers(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in svg.linear_scale(values).labelled_ticks()] == labels


@given(VALUES, st.sampled_from([0.0, 0.05, 0.1]), st.integers(4, 6))
def test_linear_scale_of_any_values_has_some_ticks_inside(values: list[float], margin: float, max_steps: int) -> None:
    scale = svg.linear_scale(values, margin=margin, max_steps=max_steps)
    assert 2 <= len(scale.ticks) <= max_steps + 1
    # A tick at an end of the scale may be past it by rounding.
    assert all(-1e-6 <= scale.fraction(tick) <= 1 + 1e-6 for tick in scale.ticks)
    assert all(isfinite(scale.fraction(value)) and -1e-6 <= scale.fraction(value) <= 1 + 1e-6 for value in values)
    labels = [label for _, label in scale.labelled_ticks()]
    assert len({*labels}) == len(labels)
    assert max(map(len, labels)) <= 14


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, MAX_MAGNITUDE])
def test_linear_scale_of_one_value_centres_it(value: float) -> None:
    assert svg.linear_scale([value], margin=0.1).fraction(value) == pytest.approx(0.5)


def test_logarithmic_scale_centres_the_geometric_mean() -> None:
    scale = svg.Scale(low=0.5, high=2.0, ticks=(0.5, 1, 2), logarithmic=True)
    assert [scale.x(value) for value in (0.5, 1, 2)] == ["0.00%", "50.00%", "100.00%"]


def test_element_with_markup_in_text_and_attribute_escapes_both() -> None:
    assert svg.element("text", "<b>\x1b", class_='"x', text_anchor=None, x=1.5) == (
        '<text class="&#34;x" x="1.5">&lt;b&gt;\\x1b</text>'
    )


@given(st.integers(1, 5000), st.integers(2, 300))
def test_subsample_keeps_the_first_and_the_last(count: int, limit: int) -> None:
    indices = subsample(count, limit)
    assert indices == sorted(set(indices))
    assert len(indices) == min(count, limit)
    assert (indices[0], indices[-1]) == (0, count - 1)
