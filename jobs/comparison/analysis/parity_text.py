"""What a pair of parity traces shows, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.rounding import severity
from jobs.comparison.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.comparison.schema import ParityOutcome, ParityPair, QuantityName, RoundingCheck

PRECISION: Final = {"fp64": "float64", "fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}

OUTCOME: Final[Mapping[ParityOutcome, str]] = {
    "agree": "agree",
    "differ": "differ",
    "rounds_too_coarsely": "rounds too coarsely",
    "initial_weights_differ": "initial weights differ",
    "not_judged": "not judged",
}

QUANTITY: Final[Mapping[QuantityName, str]] = {
    "first_logits": "logits of the first batch",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "weight_norms": "weight norms after the last step",
}
"""What is compared in float64, in the order in which a run computes it."""


def pair_text(pair: ParityPair) -> str:
    """What was compared, how far apart it is, and where the traces part if they do."""
    precision = PRECISION.get(pair.precision, pair.precision)
    seed = f"seed {pair.seed}"
    if pair.outcome == "initial_weights_differ":
        return f"the initial weights differ ({precision}, {seed}), so no step can be compared"
    if pair.outcome == "not_judged":
        return f"{precision}, {seed}: not judged, since {pair.reason}"
    if pair.outcome == "rounds_too_coarsely":
        return f"{seed}: {rounding_text(max(pair.rounding, key=severity), pair.precision)}"
    if pair.outcome == "differ":
        return f"in float64, {seed} {_parting_text(pair)}"
    difference = pair.largest_relative_difference
    apart = "no difference" if difference == 0 else f"{difference or 0:.1e} apart at most"
    text = f"{counted(pair.steps, 'step')} in float64, {seed}: {apart}, tolerance {pair.tolerance_ratio:.0e}"
    if pair.rounding:
        states = min(check.states for check in pair.rounding)
        text += f"; from {states} of their states, both round as {precision} does"
    return text


def _parting_text(pair: ParityPair) -> str:
    step, name = pair.first_step_past_tolerance, pair.first_quantity_past_tolerance
    if step is None or name is None:
        return "the two models have other shapes"
    at = "before the first step" if step == 0 else f"at step {step}"
    found = next(found for found in pair.quantities if found.name == name)
    return (
        f"the traces part {at} ({QUANTITY[name]}, {found.largest_relative_difference:.1e} apart at most in "
        f"{counted(pair.steps, 'step')}; tolerance {pair.tolerance_ratio:.0e})"
    )


def rounding_text(check: RoundingCheck, precision: str) -> str:
    """One quantity of one framework against its bound."""
    what = check.quantity if check.weight is None else f"{check.quantity} of {check.weight}"
    name = PRECISION.get(precision, precision)
    if check.usual_error > check.usual_bound:
        error = f"{check.usual_error:.1e} off in three of four states, bound {check.usual_bound:.0e}"
    else:
        error = f"{check.largest_error:.1e} off at step {check.largest_at_step}, bound {check.largest_bound:.0e}"
    return f"{check.framework} is further from float64 than {name} explains ({what}: {error})"
