"""Pairs the parity traces of two frameworks and judges them: float64 against each other, rounding against float64.

It needs no SciPy, so that it also runs in the frameworks' own environments.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import fabs
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.rounding import PRECISION, check_rounding, rounding_text, severity
from jobs.comparison.schema_parity import ParityPair, ParityQuantity, ParitySetting, TrainingCode
from jobs.comparison.text import pluralize
from jobs.report.schema import MIN_ROUNDING_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.schema_parity import ParityOutcome, QuantityName, RoundingCheck
    from jobs.report.schema import Parity, Report

TOLERANCE: Final = 1e-12
"""Largest relative difference between the frameworks' float64 steps that rounding explains.

float64 rounds each operation to 1.1e-16, and 200 steps of either recipe stay under 2e-14. 1e-12 leaves room for
another CPU's order of sums; the planted faults of docs/fairness.md are larger.
"""

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


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run's parity trace, packed into 8 bytes a value.

    ``code`` is the training code that was traced, ``None`` where a release before report schema 1.2 recorded an eager
    step of its own. ``logits_shape`` has the length of each row of logits.
    """

    framework: FrameworkName
    run_id: str
    attempt: int
    setting: ParitySetting
    code: TrainingCode | None
    initial_weights_sha256: str
    losses: array[float]
    grad_norms: array[float]
    first_logits: array[float]
    logits_shape: tuple[int, ...]
    weight_norms: dict[str, float]
    rounding: list[RoundingCheck]


def trace_of(report: Report) -> Trace | None:
    """The parity trace in ``report``, ``None`` where it has none."""
    parity, config = report.parity, report.config
    if parity is None:
        return None
    setting = ParitySetting(
        dataset_sha256=config.dataset.sha256,
        **config.model_dump(include={"recipe", "precision", "seed", "batch_size", "learning_rate"}),
    )
    code = None
    if parity.path is not None:
        # The traced path, which may differ from the run's configuration.
        code = TrainingCode.of(report).model_copy(update=parity.path.model_dump())
    return pack(parity, setting, framework=config.framework, run_id=report.run_id, attempt=report.attempt, code=code)


def pack(
    parity: Parity,
    setting: ParitySetting,
    *,
    framework: FrameworkName,
    run_id: str,
    attempt: int = 1,
    code: TrainingCode | None = None,
) -> Trace:
    """The packed trace of a run with ``setting``, with its rounding checks."""
    return Trace(
        framework=framework,
        run_id=run_id,
        attempt=attempt,
        setting=setting,
        code=code,
        initial_weights_sha256=parity.initial_weights_sha256,
        losses=array("d", (step.loss for step in parity.steps)),
        grad_norms=array("d", (step.grad_norm for step in parity.steps)),
        first_logits=array("d", (logit for row in parity.first_logits for logit in row)),
        logits_shape=tuple(len(row) for row in parity.first_logits),
        weight_norms=dict(parity.weight_norms),
        rounding=check_rounding(
            parity.rounding or (), framework=framework, precision=setting.precision, batch_size=setting.batch_size
        ),
    )


def pair_traces(traces: Iterable[Trace]) -> tuple[list[ParityPair], list[Trace]]:
    """Pair the traces of each setting, framework by framework; also returns the traces without a counterpart.

    Runs of one setting are paired in order of their run ids. If one side has fewer, its last trace is used again, so
    that every trace is compared at least once.
    """
    by_setting: dict[ParitySetting, dict[FrameworkName, list[Trace]]] = defaultdict(lambda: defaultdict(list))
    for trace in sorted(traces, key=_order):
        by_setting[trace.setting][trace.framework].append(trace)
    pairs: list[ParityPair] = []
    unpaired: list[Trace] = []
    for by_framework in by_setting.values():
        if len(by_framework) == 1:
            unpaired += next(iter(by_framework.values()))
        for first, second in combinations(by_framework.values(), 2):
            pairs += [
                compare(first[min(at, len(first) - 1)], second[min(at, len(second) - 1)])
                for at in range(max(len(first), len(second)))
            ]
    return pairs, unpaired


def _order(trace: Trace) -> tuple[object, ...]:
    return (*trace.setting.model_dump().values(), trace.framework, trace.run_id, trace.attempt)


def compare(one: Trace, other: Trace) -> ParityPair:
    """Judge two traces of one setting, over the steps that both took."""
    reason = _why_not_judged(one, other)
    quantities = [
        _compare_logits(one, other),
        _compare_steps("loss", one.losses, other.losses),
        _compare_steps("grad_norm", one.grad_norms, other.grad_norms),
        _compare_weight_norms(one, other),
    ]
    # min keeps the first of equals: of one step's quantities the loss, which is computed first.
    past_tolerance = [quantity for quantity in quantities if quantity.first_step_past_tolerance is not None]
    first = min(past_tolerance, key=lambda quantity: quantity.first_step_past_tolerance or 0, default=None)
    rounding = [*one.rounding, *other.rounding]
    outcome: ParityOutcome = "agree"
    if one.initial_weights_sha256 != other.initial_weights_sha256:
        outcome = "initial_weights_differ"
    elif reason is not None:
        outcome, first = "not_judged", None
    elif first is not None or _shapes_differ(one, other):
        outcome = "differ"
    elif not all(check.within for check in rounding):
        outcome = "rounds_too_coarsely"
    differences = [quantity.largest_relative_difference for quantity in quantities]
    pair = ParityPair(
        **one.setting.model_dump(),
        runs={trace.framework: trace.run_id for trace in sorted((one, other), key=lambda trace: trace.framework)},
        traced_code={trace.framework: trace.code for trace in (one, other) if trace.code is not None},
        steps=min(len(one.losses), len(other.losses)),
        tolerance_ratio=None if outcome == "not_judged" else TOLERANCE,
        outcome=outcome,
        text="",
        largest_relative_difference=max((value for value in differences if value is not None), default=None),
        first_step_past_tolerance=None if first is None else first.first_step_past_tolerance,
        first_quantity_past_tolerance=None if first is None else first.name,
        quantities=quantities,
        rounding=rounding,
        reason=reason,
    )
    return pair.model_copy(update={"text": _pair_text(pair)})


def _why_not_judged(one: Trace, other: Trace) -> str | None:
    if not one.losses or not other.losses:
        return "a trace has no step"
    if one.setting.precision == "fp64":
        return None
    for trace in (one, other):
        if trace.code is None:
            return f"{trace.run_id} was traced by a release before report schema 1.2, without float64 beside it"
        states = trace.rounding[0].states if trace.rounding else 0
        if states < MIN_ROUNDING_STATES:
            return f"{trace.run_id} was compared with float64 from {states} states; {MIN_ROUNDING_STATES} are needed"
    return None


def _shapes_differ(one: Trace, other: Trace) -> bool:
    return one.logits_shape != other.logits_shape or one.weight_norms.keys() != other.weight_norms.keys()


def relative_difference(one: float, other: float, scale: float) -> float:
    """``|one - other|`` as a share of ``scale``; 0 where that is 0."""
    # Halves, so that the difference of two large numbers stays in a float's range.
    return 2 * (fabs(one / 2 - other / 2) / scale) if scale > 0 else 0.0


def _compare_steps(name: QuantityName, one: Sequence[float], other: Sequence[float]) -> ParityQuantity:
    """Differences relative to the largest value of either trace up to each step.

    A trace computes losses and gradients from running sums, whose rounding error follows their largest terms. So a
    batch with a small loss has no smaller error: relative to a loss of 0.01 alone it was 7e-13.
    """
    steps = range(1, min(len(one), len(other)) + 1)
    if not steps:
        return ParityQuantity(name=name, reason="a trace has no step")
    return _compare_values(name, one, other, steps, scales=lambda magnitudes: accumulate(magnitudes, max))


def _compare_logits(one: Trace, other: Trace) -> ParityQuantity:
    if one.logits_shape != other.logits_shape or not one.first_logits:
        return ParityQuantity(name="first_logits", reason="the two are not of one shape, or empty")
    # Rounding scales with the batch's largest logit; a single logit may be arbitrarily close to zero.
    steps = [0] * len(one.first_logits)
    return _compare_values(
        "first_logits", one.first_logits, other.first_logits, steps, scales=lambda all_of: [max(all_of)] * len(all_of)
    )


def _compare_weight_norms(one: Trace, other: Trace) -> ParityQuantity:
    steps = len(one.losses)
    if steps != len(other.losses):
        return ParityQuantity(
            name="weight_norms", reason=f"taken after {steps} steps here and {len(other.losses)} there"
        )
    if one.weight_norms.keys() != other.weight_norms.keys() or not one.weight_norms:
        return ParityQuantity(name="weight_norms", reason="the two do not have the same weights, or none")
    weights = sorted(one.weight_norms)
    norms, other_norms = ([trace.weight_norms[weight] for weight in weights] for trace in (one, other))
    return _compare_values("weight_norms", norms, other_norms, [steps] * len(weights), weights=weights)


def _compare_values(
    name: QuantityName,
    one: Sequence[float],
    other: Sequence[float],
    steps: Sequence[int],
    *,
    scales: Callable[[list[float]], Iterable[float]] = iter,
    weights: Sequence[str] | None = None,
) -> ParityQuantity:
    """The largest relative difference, and the first of ``steps`` past the tolerance.

    ``scales`` computes each difference's reference from the larger magnitudes of all pairs of values.
    """
    values = list(zip(one, other, strict=False))
    magnitudes = [max(fabs(a), fabs(b)) for a, b in values]
    differences = [relative_difference(a, b, scale) for (a, b), scale in zip(values, scales(magnitudes), strict=True)]
    largest = max(differences)
    at = differences.index(largest)
    past_tolerance = (step for step, value in zip(steps, differences, strict=True) if value > TOLERANCE)
    return ParityQuantity(
        name=name,
        largest_relative_difference=largest,
        at_step=steps[at],
        where=None if weights is None else weights[at],
        first_step_past_tolerance=next(past_tolerance, None),
    )


def _pair_text(pair: ParityPair) -> str:
    """The comparison in words: the largest difference and the first step at which the traces differ."""
    precision, seed = PRECISION.get(pair.precision, pair.precision), f"seed {pair.seed}"
    if pair.outcome == "initial_weights_differ":
        return f"the initial weights differ ({precision}, {seed}), so no step can be compared"
    if pair.outcome == "not_judged":
        return f"{precision}, {seed}: not judged, since {pair.reason}"
    if pair.outcome == "rounds_too_coarsely":
        return f"{seed}: {rounding_text(max(pair.rounding, key=severity), pair.precision)}"
    steps, tolerance = pluralize(pair.steps, "step"), f"tolerance {pair.tolerance_ratio:.0e}"
    step, name = pair.first_step_past_tolerance, pair.first_quantity_past_tolerance
    if pair.outcome == "differ" and (step is None or name is None):
        return f"in float64, {seed} the two models have other shapes"
    if step is not None and name is not None:
        at = f"at step {step}" if step else "before the first step"
        largest = next(quantity.largest_relative_difference for quantity in pair.quantities if quantity.name == name)
        apart = f"{largest:.1e} apart at most in {steps}"
        return f"in float64, {seed} the traces part {at} ({QUANTITY[name]}, {apart}; {tolerance})"
    difference = pair.largest_relative_difference
    apart = f"{difference:.1e} apart at most" if difference else "no difference"
    text = f"{steps} in float64, {seed}: {apart}, {tolerance}"
    if pair.rounding:
        states = min(check.states for check in pair.rounding)
        text += f"; from {states} of their states, both round as {precision} does"
    return text
