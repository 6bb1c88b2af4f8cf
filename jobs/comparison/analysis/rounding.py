"""Checks a coarser precision's rounding errors against float64: a trace's errors must stay inside its envelope.

Two statistics over a trace's states are checked. The lower quartile is the error of most steps, and shows a fault in
the precision. The maximum also includes rare steps in which rounding changes the result of ReLU or max-pooling, since
a value is close to zero or to another one. That changes a gradient by up to a few percent, and is no fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.comparison.schema_parity import RoundingCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.schema_parity import RoundedQuantity
    from jobs.report.schema import RoundingState

PRECISION: Final = {"fp64": "float64", "fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}


class Envelope(NamedTuple):
    """The largest relative errors that a precision explains: lower quartile and maximum over a trace's states."""

    lower_quartile: float
    maximum: float


ENVELOPES: Final[Mapping[str, Mapping[RoundedQuantity, Envelope]]] = {
    "fp32": {
        "loss": Envelope(2e-6, 1e-5),
        "logits": Envelope(1e-5, 2e-5),
        "gradient": Envelope(2e-5, 0.2),
        "update": Envelope(2e-5, 0.2),
    },
    "tf32": {
        "loss": Envelope(2e-3, 1e-2),
        "logits": Envelope(5e-3, 1e-2),
        "gradient": Envelope(0.1, 0.5),
        "update": Envelope(0.1, 1.0),
    },
    "bf16": {
        "loss": Envelope(5e-3, 5e-2),
        "logits": Envelope(2e-2, 6e-2),
        "gradient": Envelope(0.3, 0.8),
        "update": Envelope(0.3, 2.0),
    },
}
"""By precision and quantity; docs/fairness.md has the measurements behind them."""

LARGE_BATCH: Final = 128
LARGE_BATCH_USUAL: Final = 1e-3
"""Above this batch size rounding changes some activation's sign in most states, also in float32."""

_MISSING_WEIGHT: Final = 1e3
"""Error of a weight that is missing in a state; outside every envelope."""


def check_rounding(
    states: Sequence[RoundingState], *, framework: FrameworkName, precision: str, batch_size: int
) -> list[RoundingCheck]:
    """Check each quantity of one trace against the envelope of ``precision``; none without an envelope."""
    envelopes = ENVELOPES.get(precision)
    if envelopes is None or not states:
        return []
    checks: list[RoundingCheck] = []
    for quantity, weight, errors in _errors(states):
        usual, largest = lower_quartile(errors), max(errors)
        usual_bound, largest_bound = envelopes[quantity]
        if batch_size > LARGE_BATCH and weight is not None:
            usual_bound = max(usual_bound, LARGE_BATCH_USUAL)
        checks.append(
            RoundingCheck(
                framework=framework,
                quantity=quantity,
                weight=weight,
                states=len(errors),
                usual_error=usual,
                usual_bound=usual_bound,
                largest_error=largest,
                largest_bound=largest_bound,
                largest_at_step=states[errors.index(largest)].step,
                within=usual <= usual_bound and largest <= largest_bound,
            )
        )
    return checks


def _errors(states: Sequence[RoundingState]) -> Iterator[tuple[RoundedQuantity, str | None, list[float]]]:
    """The errors of each quantity, by weight for gradients and updates, in the order of ``states``."""
    yield "loss", None, [state.loss for state in states]
    yield "logits", None, [state.logits for state in states]
    for weight in dict.fromkeys(name for state in states for name in state.gradients):
        yield "gradient", weight, [state.gradients.get(weight, _MISSING_WEIGHT) for state in states]
    for weight in dict.fromkeys(name for state in states for name in state.updates):
        yield "update", weight, [state.updates.get(weight, _MISSING_WEIGHT) for state in states]


def lower_quartile(values: Sequence[float]) -> float:
    """The value that a quarter of ``values``, rounded down, lie below."""
    return sorted(values)[len(values) // 4]


def severity(check: RoundingCheck) -> float:
    """The larger of the errors over their bounds; above 1 is outside the envelope."""
    return max(check.usual_error / check.usual_bound, check.largest_error / check.largest_bound)


def rounding_text(check: RoundingCheck, precision: str) -> str:
    """How one quantity of one framework exceeds its bound."""
    what = check.quantity if check.weight is None else f"{check.quantity} of {check.weight}"
    name = PRECISION.get(precision, precision)
    if check.usual_error > check.usual_bound:
        error = f"{check.usual_error:.1e} off in three of four states, bound {check.usual_bound:.0e}"
    else:
        error = f"{check.largest_error:.1e} off at step {check.largest_at_step}, bound {check.largest_bound:.0e}"
    return f"{check.framework} is further from float64 than {name} explains ({what}: {error})"
