from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.analysis.rounding import (
    ENVELOPES,
    LARGE_BATCH,
    LARGE_BATCH_USUAL,
    check_rounding,
    lower_quartile,
    severity,
)
from jobs.report.schema import MIN_ROUNDING_STATES, RoundingState

if TYPE_CHECKING:
    from jobs.comparison.schema_parity import RoundedQuantity, RoundingCheck

ERRORS = st.floats(min_value=0, max_value=1e6, allow_nan=False)
QUANTITIES: tuple[RoundedQuantity, ...] = ("loss", "logits", "gradient", "update")
PRECISIONS = ("fp32", "tf32", "bf16")


def state(step: int, **errors: Any) -> RoundingState:
    small: dict[str, Any] = {
        "loss": 0.0,
        "logits": 0.0,
        "gradients": {"conv1.kernel": 0.0, "fc1.bias": 0.0},
        "updates": {"conv1.kernel": 0.0, "fc1.bias": 0.0},
    }
    return RoundingState(step=step, **{**small, **errors})


def with_error(step: int, quantity: str, error: float, weight: str = "fc1.bias") -> RoundingState:
    """A state whose only error is ``error``, of ``quantity`` and there of ``weight``."""
    if quantity in {"loss", "logits"}:
        return state(step, **{quantity: error})
    errors = {"conv1.kernel": 0.0, "fc1.bias": 0.0, weight: error}
    return state(step, **{f"{quantity}s": errors})


def judged(states: list[RoundingState], precision: str = "fp32", batch_size: int = 64) -> list[RoundingCheck]:
    return check_rounding(states, framework="torch", precision=precision, batch_size=batch_size)


def outside(checks: list[RoundingCheck]) -> list[tuple[str, str | None]]:
    return [(check.quantity, check.weight) for check in checks if not check.within]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_check_rounding_lower_quartile_past_bound_is_outside(precision: str, quantity: RoundedQuantity) -> None:
    bound = ENVELOPES[precision][quantity].lower_quartile
    just = [with_error(step, quantity, bound) for step in range(1, 9)]
    assert outside(judged(just, precision)) == []
    weight = "fc1.bias" if quantity in {"gradient", "update"} else None
    # Three of four states past the bound are a fault; one more within it, and they may be rare.
    past = [with_error(step, quantity, 0.0 if step <= 2 else bound * 1.01) for step in range(1, 9)]
    assert outside(judged(past, precision)) == [(quantity, weight)]
    fewer = [with_error(step, quantity, 0.0 if step <= 3 else bound * 1.01) for step in range(1, 9)]
    assert outside(judged(fewer, precision)) == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_check_rounding_maximum_past_bound_is_outside(precision: str, quantity: RoundedQuantity) -> None:
    bound = ENVELOPES[precision][quantity].maximum
    rare = [with_error(step, quantity, bound if step == 5 else 0.0) for step in range(1, 13)]
    assert outside(judged(rare, precision)) == []
    rare[4] = with_error(5, quantity, bound * 1.01)
    (found,) = [check for check in judged(rare, precision) if not check.within]
    assert (found.quantity, found.largest_at_step) == (quantity, 5)
    assert found.usual_error == 0.0
    assert found.largest_error == bound * 1.01


def test_envelopes_of_coarser_precision_are_wider() -> None:
    assert ENVELOPES.keys() == set(PRECISIONS)
    for quantity in QUANTITIES:
        usual = [ENVELOPES[precision][quantity].lower_quartile for precision in PRECISIONS]
        most = [ENVELOPES[precision][quantity].maximum for precision in PRECISIONS]
        assert usual == sorted(usual)
        assert most == sorted(most)
        assert usual[0] * 10 < usual[-1]
        assert all(one <= other for one, other in zip(usual, most, strict=True))


def test_check_rounding_fault_in_one_weight_names_only_that_weight() -> None:
    states = [with_error(step, "gradient", 0.01, weight="conv1.kernel") for step in range(1, 9)]
    assert outside(judged(states)) == [("gradient", "conv1.kernel")]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_check_rounding_weight_missing_in_a_state_is_outside(precision: str) -> None:
    states = [state(step) for step in range(1, 9)]
    states[3] = state(4, gradients={"conv1.kernel": 0.0}, updates={"fc1.bias": 0.0})
    assert outside(judged(states, precision)) == [("gradient", "fc1.bias"), ("update", "conv1.kernel")]


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_check_rounding_large_batch_widens_bound_of_gradients_and_updates_only(quantity: str) -> None:
    states = [with_error(step, quantity, LARGE_BATCH_USUAL) for step in range(1, 9)]
    expected = [] if quantity in {"gradient", "update"} else [quantity]
    assert [name for name, _ in outside(judged(states, batch_size=LARGE_BATCH + 1))] == expected
    assert [name for name, _ in outside(judged(states, batch_size=LARGE_BATCH))] == [quantity]


def test_check_rounding_without_states_or_envelope_is_empty() -> None:
    assert judged([]) == []
    assert judged([state(step) for step in range(1, 9)], "fp64") == []


def test_lower_quartile_with_one_outlier_among_fewest_states_is_unchanged() -> None:
    values = [1.0] * (MIN_ROUNDING_STATES - 1)
    assert lower_quartile([*values, 0.0]) == lower_quartile([*values, 9.0]) == 1.0


@given(st.lists(ERRORS, min_size=1, max_size=40))
def test_lower_quartile_has_at_most_a_quarter_below(values: list[float]) -> None:
    found = lower_quartile(values)
    assert found in values
    assert sum(value < found for value in values) <= len(values) // 4
    assert sum(value <= found for value in values) > len(values) // 4
    assert found == lower_quartile(sorted(values, reverse=True))


@given(st.lists(ERRORS, min_size=1, max_size=40), st.floats(min_value=1, max_value=1e3))
def test_lower_quartile_of_larger_values_is_not_smaller(values: list[float], factor: float) -> None:
    assert lower_quartile([value * factor for value in values]) >= lower_quartile(values)


@given(
    st.sampled_from(PRECISIONS), st.sampled_from(QUANTITIES), st.lists(ERRORS, min_size=1, max_size=20), st.integers(1)
)
def test_severity_above_one_means_outside(precision: str, quantity: str, errors: list[float], batch_size: int) -> None:
    states = [with_error(step, quantity, error) for step, error in enumerate(errors, start=1)]
    for check in judged(states, precision, batch_size):
        assert check.within == (check.usual_error <= check.usual_bound and check.largest_error <= check.largest_bound)
        assert check.within == (severity(check) <= 1)
        assert check.usual_error <= check.largest_error
        assert check.states == len(errors)
