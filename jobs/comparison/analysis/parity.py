"""Pairs the parity traces of both frameworks and judges them: float64 against each other, rounding against float64.

Plain Python on purpose: it also runs in the frameworks' own environments, which have no SciPy.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from math import fabs
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.parity_text import pair_text
from jobs.comparison.analysis.rounding import check_rounding
from jobs.comparison.schema import ParityPair, ParityQuantity, TrainingCode
from jobs.report.schema import MIN_ROUNDING_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.schema import FrameworkName, ParityOutcome, QuantityName, RoundingCheck
    from jobs.report.schema import Parity, Report

TOLERANCE: Final = 1e-12
"""Largest relative difference between the frameworks' float64 steps that rounding explains.

float64 rounds each operation to 1.1e-16, and 200 steps of either recipe stay under 2e-14: 1e-12 leaves room for
another CPU's order of sums, and no fault is that small.
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What two traces must share to be paired; everything else that differs is what parity is to find."""

    recipe: str
    precision: str
    seed: int
    batch_size: int
    learning_rate: float
    dataset_sha256: str


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run's parity trace, packed: 8 bytes a figure.

    ``code`` is the training code that was traced, ``None`` where a release before report schema 1.2 recorded an eager
    step of its own.
    """

    framework: FrameworkName
    run_id: str
    attempt: int
    setting: Setting
    code: TrainingCode | None
    initial_weights_sha256: str
    losses: array[float]
    grad_norms: array[float]
    first_logits: array[float]
    logits_shape: tuple[int, ...]
    """Length of each row."""
    weight_norms: dict[str, float]
    rounding: tuple[RoundingCheck, ...]


def trace_of(report: Report) -> Trace | None:
    """The parity trace in ``report``, ``None`` where it has none."""
    parity, config = report.parity, report.config
    if parity is None:
        return None
    setting = Setting(
        recipe=config.recipe,
        precision=config.precision,
        seed=config.seed,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        dataset_sha256=config.dataset.sha256,
    )
    code = None
    if parity.path is not None:
        # What was traced counts, not what the run is said to have done.
        code = TrainingCode.of(report).model_copy(update=parity.path.model_dump())
    return pack(parity, setting, framework=config.framework, run_id=report.run_id, attempt=report.attempt, code=code)


def pack(
    parity: Parity,
    setting: Setting,
    *,
    framework: FrameworkName,
    run_id: str,
    attempt: int = 1,
    code: TrainingCode | None = None,
) -> Trace:
    """A recorded trace of a run with ``setting``, its rounding judged, ready to be compared."""
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
            parity.rounding or (),
            framework=framework,
            precision=setting.precision,
            batch_size=setting.batch_size,
        ),
    )


def pair_traces(traces: Iterable[Trace]) -> tuple[tuple[ParityPair, ...], tuple[Trace, ...]]:
    """Pair the two frameworks' traces of each setting; also returns the traces that found no counterpart.

    Runs of one setting are paired in order of their run ids; the longer side's rest is held against the other
    side's last, so that every trace is compared at least once.
    """
    by_setting: dict[Setting, dict[FrameworkName, list[Trace]]] = defaultdict(lambda: defaultdict(list))
    for trace in sorted(traces, key=_order):
        by_setting[trace.setting][trace.framework].append(trace)
    pairs: list[ParityPair] = []
    alone: list[Trace] = []
    for sides in by_setting.values():
        first, second = sides["tensorflow"], sides["torch"]
        if not first or not second:
            alone += first + second
            continue
        pairs += [
            compare(first[min(index, len(first) - 1)], second[min(index, len(second) - 1)])
            for index in range(max(len(first), len(second)))
        ]
    return tuple(pairs), tuple(alone)


def _order(trace: Trace) -> tuple[str, str, int, int, float, str, str, str, int]:
    setting = trace.setting
    return (
        setting.recipe,
        setting.precision,
        setting.seed,
        setting.batch_size,
        setting.learning_rate,
        setting.dataset_sha256,
        trace.framework,
        trace.run_id,
        trace.attempt,
    )


def compare(one: Trace, other: Trace) -> ParityPair:
    """Judge two traces of one setting; over the steps that both took."""
    setting = one.setting
    steps = min(len(one.losses), len(other.losses))
    reason = _not_judged(one, other)
    quantities = [
        _logits(one, other),
        _by_step("loss", one.losses, other.losses),
        _by_step("grad_norm", one.grad_norms, other.grad_norms),
        _weight_norms(one, other),
    ]
    # Of one step's quantities the loss comes first, as it is computed first; min keeps the first of equals.
    past = [found for found in quantities if found.first_step_past_tolerance is not None]
    first = min(past, key=lambda found: found.first_step_past_tolerance or 0, default=None)
    outcome: ParityOutcome = "agree"
    if one.initial_weights_sha256 != other.initial_weights_sha256:
        outcome = "initial_weights_differ"
    elif reason is not None:
        outcome, first = "not_judged", None
    elif first is not None or _shapes_differ(one, other):
        outcome = "differ"
    elif not all(check.within for check in (*one.rounding, *other.rounding)):
        outcome = "rounds_too_coarsely"
    differences = [found.largest_relative_difference for found in quantities]
    pair = ParityPair(
        recipe=setting.recipe,
        precision=setting.precision,
        seed=setting.seed,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        dataset_sha256=setting.dataset_sha256,
        runs={trace.framework: trace.run_id for trace in sorted((one, other), key=lambda trace: trace.framework)},
        traced_code={trace.framework: trace.code for trace in (one, other) if trace.code is not None},
        steps=steps,
        tolerance_ratio=None if outcome == "not_judged" else TOLERANCE,
        outcome=outcome,
        text="",
        largest_relative_difference=max((found for found in differences if found is not None), default=None),
        first_step_past_tolerance=None if first is None else first.first_step_past_tolerance,
        first_quantity_past_tolerance=None if first is None else first.name,
        quantities=quantities,
        rounding=[*one.rounding, *other.rounding],
        reason=reason,
    )
    return pair.model_copy(update={"text": pair_text(pair)})


def _not_judged(one: Trace, other: Trace) -> str | None:
    """Why two traces of one setting cannot be judged."""
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


def relative_difference(one: float, other: float, *, scale: float | None = None) -> float:
    """``|a - b|`` over ``scale``, which is the larger magnitude unless given; 0 where that is 0."""
    scale = max(fabs(one), fabs(other)) if scale is None else scale
    # Halves, so that neither the difference nor a sum of two large numbers leaves a float's range.
    return 2 * (fabs(one / 2 - other / 2) / scale) if scale > 0 else 0.0


def _shapes_differ(one: Trace, other: Trace) -> bool:
    return one.logits_shape != other.logits_shape or one.weight_norms.keys() != other.weight_norms.keys()


def _by_step(name: QuantityName, one: Sequence[float], other: Sequence[float]) -> ParityQuantity:
    """Differences relative to the largest value of either trace up to each step.

    A trace tells losses and gradients from running sums. A sum's rounding is that of its largest terms, so that a batch
    whose own loss is small has no smaller error: relative to a loss of 0.01 that alone was 7e-13.
    """
    if not one or not other:
        return _unknown(name, "a trace has no step")
    pairs = list(zip(one, other, strict=False))
    scales = accumulate((max(fabs(a), fabs(b)) for a, b in pairs), max)
    differences = [relative_difference(a, b, scale=scale) for (a, b), scale in zip(pairs, scales, strict=True)]
    largest = max(differences)
    past = (step for step, difference in enumerate(differences, start=1) if difference > TOLERANCE)
    return _known(name, largest, at_step=differences.index(largest) + 1, first_past=next(past, None))


def _logits(one: Trace, other: Trace) -> ParityQuantity:
    if one.logits_shape != other.logits_shape or not one.first_logits:
        return _unknown("first_logits", "the two are not of one shape, or empty")
    # A logit may be as near to zero as it likes: the batch's largest is the scale that rounding has.
    scale = max(map(fabs, (*one.first_logits, *other.first_logits)))
    gaps = (fabs(a / 2 - b / 2) for a, b in zip(one.first_logits, other.first_logits, strict=True))
    largest = 2 * (max(gaps) / scale) if scale > 0 else 0.0
    return _known("first_logits", largest, at_step=0, first_past=0 if largest > TOLERANCE else None)


def _weight_norms(one: Trace, other: Trace) -> ParityQuantity:
    if len(one.losses) != len(other.losses):
        reason = f"taken after {len(one.losses)} steps here and {len(other.losses)} there"
        return _unknown("weight_norms", reason)
    if one.weight_norms.keys() != other.weight_norms.keys() or not one.weight_norms:
        return _unknown("weight_norms", "the two do not have the same weights, or none")
    differences = _differences(one.weight_norms, other.weight_norms)
    where = max(sorted(differences), key=differences.__getitem__)
    last = len(one.losses)
    past = last if differences[where] > TOLERANCE else None
    return _known("weight_norms", differences[where], at_step=last, first_past=past, where=where)


def _differences(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: relative_difference(norm, other[name]) for name, norm in one.items()}


def _known(
    name: QuantityName, largest: float, *, at_step: int, first_past: int | None, where: str | None = None
) -> ParityQuantity:
    return ParityQuantity(
        name=name,
        largest_relative_difference=largest,
        at_step=at_step,
        where=where,
        first_step_past_tolerance=first_past,
        reason=None,
    )


def _unknown(name: QuantityName, reason: str) -> ParityQuantity:
    return ParityQuantity(
        name=name,
        largest_relative_difference=None,
        at_step=None,
        where=None,
        first_step_past_tolerance=None,
        reason=reason,
    )
