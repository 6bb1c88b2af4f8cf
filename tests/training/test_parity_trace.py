"""The parts of a parity trace that no framework has a part in; tests/adapter traces for real."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jobs.report.schema import MIN_ROUNDING_STATES
from jobs.training.parity_trace import (
    MAX_ROUNDING_STATES,
    batches_with_short_one,
    relative_error,
    rounding_steps,
    update_error,
)
from jobs.training.seeding import epoch_order

FINITE = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False, width=32)
# Numbers whose squares a float64 holds.
NUMBERS = FINITE.filter(lambda number: number == 0 or abs(number) > 1e-6)


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    values = arrays(np.float64, draw(st.integers(1, 20)), elements=NUMBERS)
    return draw(values), draw(values)


@given(pairs())
def test_relative_error_of_equal_arrays_is_zero_and_else_positive(pair: Any) -> None:
    found, exact = pair
    assert relative_error(exact, exact) == 0
    assert (relative_error(found, exact) == 0) == bool((found == exact).all())


@given(pairs(), st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**20]))
def test_relative_error_of_scaled_arrays_is_the_same(pair: Any, factor: float) -> None:
    found, exact = pair
    assert relative_error(found * factor, exact * factor) == pytest.approx(relative_error(found, exact), rel=1e-12)


@given(arrays(np.float64, st.integers(1, 20), elements=NUMBERS), st.floats(1e-9, 10))
def test_relative_error_of_an_added_error_is_that_error(exact: Any, error: float) -> None:
    """Only where there is something to be relative to; beside zeros every difference counts as 1."""
    expected = error if exact.any() else 0.0
    assert relative_error(exact * (1 + error), exact) == pytest.approx(expected, rel=1e-6)
    assert relative_error(np.zeros_like(exact), exact) == (1 if exact.any() else 0)
    assert relative_error(np.ones_like(exact), np.zeros_like(exact)) == 1


@given(pairs())
def test_update_error_of_rounding_in_storage_is_zero(pair: Any) -> None:
    before, step = pair
    exact = before + step
    assert update_error(exact.astype(np.float32).astype(np.float64), exact, before, np.dtype(np.float32)) == 0


@given(pairs(), st.floats(0.01, 10))
def test_update_error_of_a_wrong_step_is_its_error_less_storage(pair: Any, error: float) -> None:
    before, step = pair
    exact = before + step
    found = before + (1 + error) * step
    taken, step_norm = update_error(found, exact, before, np.dtype(np.float32)), np.linalg.norm(exact - before)
    if step_norm == 0:
        assert taken == 0
        return
    storage = np.linalg.norm(np.spacing(np.abs(found).astype(np.float32)).astype(np.float64) / 2) / step_norm
    # What float64 itself rounds here is allowed for too.
    slack = 1e-9 * (1 + float(np.linalg.norm(before)) / float(step_norm))
    assert error - storage - slack <= taken <= error + slack
    assert taken <= relative_error(found - before, exact - before) + slack


def test_update_error_of_a_missing_step_is_one() -> None:
    before, dtype = np.zeros(4), np.dtype(np.float32)
    assert update_error(before, before + 0.5, before, dtype) == pytest.approx(1, abs=1e-6)
    assert update_error(before, before, before, dtype) == 0
    assert update_error(before + 0.5, before, before, dtype) == 1


@given(st.integers(1, 100_000))
def test_rounding_steps_are_spread_from_the_first_step_to_the_last(steps: int) -> None:
    taken = sorted(rounding_steps(steps))
    assert taken[0] == 0
    assert taken[-1] == steps - 1
    assert len(taken) <= MAX_ROUNDING_STATES + 1
    assert len(taken) >= min(steps, MIN_ROUNDING_STATES)
    assert steps == 1 or taken[1] == 1
    gaps = np.diff(taken)
    assert len(gaps) == 0 or gaps.max() <= -(-(steps - 1) // (MAX_ROUNDING_STATES - 1)) + 1


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5))
def test_batches_with_short_one_take_every_example_once_and_the_short_batch_second(
    examples: int, batch_size: int, seed: int
) -> None:
    spec: Any = SimpleNamespace(seed=seed, batch_size=batch_size)
    steps = -(-examples // batch_size)
    batches = list(islice(batches_with_short_one(spec, examples), 2 * steps))
    assert [batch.epoch for batch in batches] == [1] * steps + [2] * steps
    for epoch in (1, 2):
        mine = [batch for batch in batches if batch.epoch == epoch]
        assert sorted(row for batch in mine for row in batch.examples) == list(range(examples))
        assert {batch.index for batch in mine} == set(range(steps))
        assert (mine[0].order == epoch_order(seed, epoch, examples)).all()
        if steps > 1:
            assert mine[1].index == steps - 1
            assert len(mine[1].examples) == (examples - 1) % batch_size + 1
