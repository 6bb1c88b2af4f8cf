"""Judges how far a coarser precision rounds from float64: each precision has an envelope, and a run stays inside it.

An error is judged twice over the states of one trace. Its lower quartile is what rounding costs in every step; a fault
in the precision shows there. Its maximum also holds the rare step in which an activation so close to zero, or two so
close to each other, that rounding decides whether ReLU or max-pooling lets it through: one such decision moves a
gradient by up to some percent, and means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.schema import RoundingCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobs.comparison.schema import FrameworkName, RoundedQuantity
    from jobs.report.schema import RoundingState


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The largest relative errors that a precision explains.

    ``usual`` bounds the lower quartile over a trace's states, ``most`` the maximum.
    """

    usual: float
    most: float


ENVELOPES: Final[Mapping[str, Mapping[RoundedQuantity, Envelope]]] = {
    "fp32": {
        "loss": Envelope(usual=2e-6, most=1e-5),
        "logits": Envelope(usual=1e-5, most=2e-5),
        "gradient": Envelope(usual=2e-5, most=0.2),
        "update": Envelope(usual=2e-5, most=0.2),
    },
    "tf32": {
        "loss": Envelope(usual=2e-3, most=1e-2),
        "logits": Envelope(usual=5e-3, most=1e-2),
        "gradient": Envelope(usual=0.1, most=0.5),
        "update": Envelope(usual=0.1, most=1.0),
    },
    "bf16": {
        "loss": Envelope(usual=5e-3, most=5e-2),
        "logits": Envelope(usual=2e-2, most=6e-2),
        "gradient": Envelope(usual=0.3, most=0.8),
        "update": Envelope(usual=0.3, most=2.0),
    },
}
"""By precision and quantity; docs/fairness.md has the measurements that they come from."""

LARGE_BATCH: Final = 128
LARGE_BATCH_USUAL: Final = 1e-3
"""From this batch size on, most states hold an activation whose side of zero rounding decides, in float32 too."""


def check_rounding(
    states: Sequence[RoundingState], *, framework: FrameworkName, precision: str, batch_size: int
) -> tuple[RoundingCheck, ...]:
    """Each quantity of one trace against the envelope of ``precision``; none where that has no envelope."""
    envelopes = ENVELOPES.get(precision)
    if envelopes is None or not states:
        return ()
    return tuple(
        _check(framework, quantity, weight, errors, envelopes[quantity], states, large=batch_size > LARGE_BATCH)
        for quantity, weight, errors in _errors(states)
    )


def _errors(states: Sequence[RoundingState]) -> Iterator[tuple[RoundedQuantity, str | None, list[float]]]:
    yield "loss", None, [state.loss for state in states]
    yield "logits", None, [state.logits for state in states]
    # A weight that a state lacks is no weight of the model: an error of 1 puts it outside every envelope.
    for weight in dict.fromkeys(name for state in states for name in state.gradients):
        yield "gradient", weight, [state.gradients.get(weight, 1.0) for state in states]
    for weight in dict.fromkeys(name for state in states for name in state.updates):
        yield "update", weight, [state.updates.get(weight, 1.0) for state in states]


def _check(
    framework: FrameworkName,
    quantity: RoundedQuantity,
    weight: str | None,
    errors: list[float],
    envelope: Envelope,
    states: Sequence[RoundingState],
    *,
    large: bool,
) -> RoundingCheck:
    usual_bound = envelope.usual
    if large and quantity in {"gradient", "update"}:
        usual_bound = max(usual_bound, LARGE_BATCH_USUAL)
    usual, largest = lower_quartile(errors), max(errors)
    return RoundingCheck(
        framework=framework,
        quantity=quantity,
        weight=weight,
        states=len(errors),
        usual_error=usual,
        usual_bound=usual_bound,
        largest_error=largest,
        largest_bound=envelope.most,
        largest_at_step=states[errors.index(largest)].step,
        within=usual <= usual_bound and largest <= envelope.most,
    )


def lower_quartile(values: Sequence[float]) -> float:
    """The value that a quarter of ``values``, rounded down, lie below."""
    return sorted(values)[len(values) // 4]


def severity(check: RoundingCheck) -> float:
    """How much of its envelope ``check`` takes: above 1 it is outside."""
    return max(check.usual_error / check.usual_bound, check.largest_error / check.largest_bound)
