"""Lines up the parity traces of both frameworks and says how far apart they are, and from which step on.

Plain Python on purpose: it also runs in the frameworks' own environments, which have no SciPy.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from math import fabs
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.report.schema import Parity, Report

FrameworkName = Literal["tensorflow", "torch"]
QuantityName = Literal["first_logits", "loss", "grad_norm", "weight_norms"]
Outcome = Literal["agree", "differ", "initial_weights_differ", "not_judged"]

TOLERANCE: Final[Mapping[str, float]] = {"fp64": 1e-12, "fp32": 1e-6}
"""Largest relative difference that rounding explains, by precision; the others round too coarsely to be judged.

float64 rounds each operation to 1.1e-16, and 200 steps of either recipe stay under 2e-14: 1e-12 leaves room for
another CPU's order of sums, and no fault is that small. float32 rounds to 6.0e-8 and SGD's 100 steps add up to
2e-7, which 1e-6 covers; Adam divides by gradients near zero, and amplifies that rounding without bound.
"""

QUANTITY: Final[Mapping[QuantityName, str]] = {
    "first_logits": "logits of the first batch",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "weight_norms": "weight norms after the last step",
}
"""What is compared, in the order in which a run computes it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What two traces must share to be lined up; everything else that differs is what parity is to find."""

    recipe: str
    precision: str
    seed: int
    batch_size: int
    learning_rate: float
    dataset_sha256: str


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run's parity trace, packed: 8 bytes a figure."""

    framework: FrameworkName
    run_id: str
    attempt: int
    setting: Setting
    initial_weights_sha256: str
    losses: array[float]
    grad_norms: array[float]
    first_logits: array[float]
    logits_shape: tuple[int, ...]
    """Length of each row."""
    weight_norms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How far one quantity is apart; steps count from 1, 0 is before the first.

    ``largest`` is ``None`` where nothing could be compared, and ``reason`` says why. ``where`` names a weight.
    ``first_past`` is the first step at which the tolerance is passed.
    """

    name: QuantityName
    largest: float | None
    at_step: int | None
    where: str | None
    first_past: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two traces of one setting, lined up."""

    setting: Setting
    runs: dict[FrameworkName, str]
    steps: int
    tolerance: float | None
    outcome: Outcome
    quantities: tuple[Quantity, ...]

    @property
    def largest(self) -> float | None:
        """The largest relative difference of all quantities."""
        return max((found.largest for found in self.quantities if found.largest is not None), default=None)

    @property
    def first_past(self) -> tuple[int, QuantityName] | None:
        """Where the traces part: the earliest step past the tolerance and the quantity that shows it."""
        passed = [found for found in self.quantities if found.first_past is not None]
        # Of one step's quantities the loss comes first, as it is computed first; min keeps the first of equals.
        first = min(passed, key=lambda found: found.first_past or 0, default=None)
        return None if first is None or first.first_past is None else (first.first_past, first.name)


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
    return pack(parity, setting, framework=config.framework, run_id=report.run_id, attempt=report.attempt)


def pack(parity: Parity, setting: Setting, *, framework: FrameworkName, run_id: str, attempt: int = 1) -> Trace:
    """A recorded trace of a run with ``setting``, ready to be compared."""
    return Trace(
        framework=framework,
        run_id=run_id,
        attempt=attempt,
        setting=setting,
        initial_weights_sha256=parity.initial_weights_sha256,
        losses=array("d", (step.loss for step in parity.steps)),
        grad_norms=array("d", (step.grad_norm for step in parity.steps)),
        first_logits=array("d", (logit for row in parity.first_logits for logit in row)),
        logits_shape=tuple(len(row) for row in parity.first_logits),
        weight_norms=dict(parity.weight_norms),
    )


def line_up(traces: Iterable[Trace]) -> tuple[tuple[Pair, ...], tuple[Trace, ...]]:
    """Pair the two frameworks' traces of each setting; also returns the traces that found no counterpart.

    Runs of one setting are paired in order of their run ids; the longer side's rest is held against the other
    side's last, so that every trace is compared at least once.
    """
    by_setting: dict[Setting, dict[FrameworkName, list[Trace]]] = defaultdict(lambda: defaultdict(list))
    for trace in sorted(traces, key=_order):
        by_setting[trace.setting][trace.framework].append(trace)
    pairs: list[Pair] = []
    alone: list[Trace] = []
    for sides in by_setting.values():
        below, above = sides["tensorflow"], sides["torch"]
        if not below or not above:
            alone += below + above
            continue
        pairs += [
            compare(below[min(index, len(below) - 1)], above[min(index, len(above) - 1)])
            for index in range(max(len(below), len(above)))
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


def compare(one: Trace, other: Trace) -> Pair:
    """How far two traces of one setting are apart; over the steps that both took."""
    tolerance = TOLERANCE.get(one.setting.precision)
    steps = min(len(one.losses), len(other.losses))
    quantities = (
        _logits(one, other, tolerance),
        _by_step("loss", one.losses, other.losses, tolerance),
        _by_step("grad_norm", one.grad_norms, other.grad_norms, tolerance),
        _weight_norms(one, other, tolerance),
    )
    outcome: Outcome = "agree"
    if one.initial_weights_sha256 != other.initial_weights_sha256:
        outcome = "initial_weights_differ"
    elif tolerance is None:
        outcome = "not_judged"
    elif any(found.first_past is not None for found in quantities) or _shapes_differ(one, other):
        outcome = "differ"
    elif steps == 0:
        outcome = "not_judged"
    return Pair(
        setting=one.setting,
        runs={one.framework: one.run_id, other.framework: other.run_id},
        steps=steps,
        tolerance=tolerance,
        outcome=outcome,
        quantities=quantities,
    )


def relative_difference(one: float, other: float) -> float:
    """``|a - b|`` over the larger magnitude: 0 for equal numbers, and 1 where one of them is 0."""
    scale = max(fabs(one), fabs(other))
    # Halves, so that neither the difference nor a sum of two large numbers leaves a float's range.
    return 2 * (fabs(one / 2 - other / 2) / scale) if scale > 0 else 0.0


def _shapes_differ(one: Trace, other: Trace) -> bool:
    return one.logits_shape != other.logits_shape or one.weight_norms.keys() != other.weight_norms.keys()


def _by_step(name: QuantityName, one: Sequence[float], other: Sequence[float], tolerance: float | None) -> Quantity:
    differences = [relative_difference(a, b) for a, b in zip(one, other, strict=False)]
    if not differences:
        return _unknown(name, "a trace has no step")
    largest = max(differences)
    past = (step for step, difference in enumerate(differences, start=1) if _passes(difference, tolerance))
    return Quantity(
        name=name,
        largest=largest,
        at_step=differences.index(largest) + 1,
        where=None,
        first_past=next(past, None),
        reason=None,
    )


def _logits(one: Trace, other: Trace, tolerance: float | None) -> Quantity:
    if one.logits_shape != other.logits_shape or not one.first_logits:
        return _unknown("first_logits", "the two are not of one shape, or empty")
    # A logit may be as near to zero as it likes: the batch's largest is the scale that rounding has.
    scale = max(map(fabs, (*one.first_logits, *other.first_logits)))
    gaps = (fabs(a / 2 - b / 2) for a, b in zip(one.first_logits, other.first_logits, strict=True))
    largest = 2 * (max(gaps) / scale) if scale > 0 else 0.0
    passed = 0 if _passes(largest, tolerance) else None
    return Quantity(name="first_logits", largest=largest, at_step=0, where=None, first_past=passed, reason=None)


def _weight_norms(one: Trace, other: Trace, tolerance: float | None) -> Quantity:
    if len(one.losses) != len(other.losses):
        reason = f"taken after {len(one.losses)} steps here and {len(other.losses)} there"
        return _unknown("weight_norms", reason)
    if one.weight_norms.keys() != other.weight_norms.keys() or not one.weight_norms:
        return _unknown("weight_norms", "the two do not have the same weights, or none")
    differences = {name: relative_difference(norm, other.weight_norms[name]) for name, norm in one.weight_norms.items()}
    where = max(sorted(differences), key=differences.__getitem__)
    last = len(one.losses)
    return Quantity(
        name="weight_norms",
        largest=differences[where],
        at_step=last,
        where=where,
        first_past=last if _passes(differences[where], tolerance) else None,
        reason=None,
    )


def _passes(difference: float, tolerance: float | None) -> bool:
    return tolerance is not None and difference > tolerance


def _unknown(name: QuantityName, reason: str) -> Quantity:
    return Quantity(name=name, largest=None, at_step=None, where=None, first_past=None, reason=reason)
