"""What the parity traces say, in the comparison's own parts and in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.model import ParityPair, ParityQuantity, SectionParity, UnpairedTrace
from jobs.comparison.parity import QUANTITY, Pair, Quantity, Trace, line_up, trace_of
from jobs.comparison.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.parity import Outcome
    from jobs.comparison.run import Run

PRECISION: Final = {"fp64": "float64", "fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}
OUTCOME: Final[Mapping[Outcome, str]] = {
    "agree": "agree",
    "differ": "differ",
    "initial_weights_differ": "initial weights differ",
    "not_judged": "not judged",
}
FAILED: Final[frozenset[Outcome]] = frozenset({"differ", "initial_weights_differ"})
HOW_TO_SHOW: Final = "train --precision fp64 --parity-steps 200 --epochs 0"


def lined_up(runs: Iterable[Run]) -> tuple[list[ParityPair], list[UnpairedTrace]]:
    """Every pair of traces among ``runs``, and the traces without a counterpart.

    Raises:
        BadInput: a report with a trace has gone or changed since it was found.
    """
    # A trace is thousands of figures that nothing else needs: each is read again here, and kept packed.
    traces = (trace_of(run.whole()) for run in runs if run.has_parity)
    pairs, alone = line_up(trace for trace in traces if trace is not None)
    return [_pair(pair) for pair in pairs], [_unpaired(trace) for trace in alone]


def unpaired_line(trace: UnpairedTrace) -> str:
    other = "torch" if trace.framework == "tensorflow" else "tensorflow"
    return (
        f"the parity trace of {trace.run_id} ({trace.framework}, {trace.recipe}, {trace.precision}, seed {trace.seed}) "
        f"has no counterpart: record one with {other}, of the same settings"
    )


def speak_for(recipe: str, protocol: str, pairs: Sequence[ParityPair]) -> SectionParity:
    """What ``pairs`` say about the runs of ``recipe`` under ``protocol``."""
    if protocol != "matched":
        return SectionParity(
            outcome="not_expected", text="parity is not expected: each framework follows its own arithmetic here"
        )
    mine = [pair for pair in pairs if pair.recipe == recipe and pair.outcome != "not_judged"]
    if not mine:
        return SectionParity(
            outcome="not_shown", text=f"parity is not shown: add a trace of each framework ({HOW_TO_SHOW})"
        )
    worst = min(mine, key=_gravity)
    if worst.outcome == "initial_weights_differ":
        return SectionParity(outcome="differ", text=f"parity fails: {worst.text}")
    proofs = [pair for pair in mine if pair.precision == "fp64"]
    failed = [pair for pair in proofs or mine if pair.outcome == "differ"]
    if failed:
        text = f"parity fails: {min(failed, key=_gravity).text}"
        if proofs:
            text += "; float64 leaves rounding no room, so the two frameworks do not compute the same"
        else:
            text += f"; only float64 can tell rounding from a fault ({HOW_TO_SHOW})"
        return SectionParity(outcome="differ", text=text)
    best = max(proofs or mine, key=lambda pair: pair.largest_relative_difference or 0.0)
    text = f"parity holds: {best.text}"
    if len(proofs or mine) > 1:
        text += f", the furthest apart of {len(proofs or mine)} pairs"
    drifting = [pair for pair in mine if pair.outcome == "differ"]
    if drifting:
        text += f"; {min(drifting, key=_gravity).text}, which is rounding, as float64 shows"
    return SectionParity(outcome="agree", text=text)


def _gravity(pair: ParityPair) -> tuple[bool, int]:
    """Other initial weights first, then the earliest step."""
    step = pair.first_step_past_tolerance
    return (pair.outcome != "initial_weights_differ", pair.steps + 1 if step is None else step)


def _pair(pair: Pair) -> ParityPair:
    first = pair.first_past
    return ParityPair(
        recipe=pair.setting.recipe,
        precision=pair.setting.precision,
        seed=pair.setting.seed,
        batch_size=pair.setting.batch_size,
        learning_rate=pair.setting.learning_rate,
        dataset_sha256=pair.setting.dataset_sha256,
        runs={framework: pair.runs[framework] for framework in sorted(pair.runs)},
        steps=pair.steps,
        tolerance_ratio=pair.tolerance,
        outcome=pair.outcome,
        text=_sentence(pair),
        largest_relative_difference=pair.largest,
        first_step_past_tolerance=None if first is None else first[0],
        first_quantity_past_tolerance=None if first is None else first[1],
        quantities=[_quantity(found) for found in pair.quantities],
    )


def _sentence(pair: Pair) -> str:
    precision = PRECISION.get(pair.setting.precision, pair.setting.precision)
    where = f"{precision}, seed {pair.setting.seed}"
    if pair.outcome == "initial_weights_differ":
        return f"the initial weights differ ({where}), so no step can be compared"
    apart = "no difference" if pair.largest == 0 else f"{pair.largest or 0:.1e} apart at most"
    took = f"{counted(pair.steps, 'step')} in {where}: {apart}"
    if pair.outcome == "not_judged":
        return f"{took}, not judged"
    first = pair.first_past
    if first is None:
        return f"{took}, tolerance {pair.tolerance:.0e}" if pair.outcome == "agree" else f"{where}: other shapes"
    step, name = first
    at = "before the first step" if step == 0 else f"at step {step}"
    apart_there = next(found for found in pair.quantities if found.name == name)
    return (
        f"in {where} the traces part {at} ({QUANTITY[name]}, {apart_there.largest:.1e} apart at most in "
        f"{counted(pair.steps, 'step')}; tolerance {pair.tolerance:.0e})"
    )


def _quantity(found: Quantity) -> ParityQuantity:
    return ParityQuantity(
        name=found.name,
        largest_relative_difference=found.largest,
        at_step=found.at_step,
        where=found.where,
        first_step_past_tolerance=found.first_past,
        reason=found.reason,
    )


def _unpaired(trace: Trace) -> UnpairedTrace:
    return UnpairedTrace(
        framework=trace.framework,
        run_id=trace.run_id,
        recipe=trace.setting.recipe,
        precision=trace.setting.precision,
        seed=trace.setting.seed,
    )
