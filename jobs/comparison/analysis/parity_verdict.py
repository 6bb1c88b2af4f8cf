"""The parity verdict on a section's runs, from the parity traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.choices import FRAMEWORKS
from jobs.comparison.analysis.parity import pair_traces, trace_of
from jobs.comparison.schema_parity import SectionParity, UnpairedTrace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.analysis.comparability import Group
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema_parity import ParityOutcome, ParityPair

FAILED: Final[frozenset[ParityOutcome]] = frozenset({"differ", "rounds_too_coarsely", "initial_weights_differ"})
_IN_SHARDS: Final = "parity is not shown: traces are of whole batches, and these runs trained in shards"
_HOW_TO_SHOW: Final = "add --parity-steps 200 to one run of each framework"


def paired_traces(runs: Iterable[RunSummary]) -> tuple[list[ParityPair], list[UnpairedTrace]]:
    """Every pair of traces among ``runs``, and the traces without a counterpart.

    Raises:
        BadInput: a report with a trace was removed or changed since it was read first.
    """
    # A trace has thousands of values that only this function needs. Each is read again here and packed.
    traces = (trace_of(run.load_report()) for run in runs if run.has_parity)
    pairs, unpaired = pair_traces(trace for trace in traces if trace is not None)
    return pairs, [
        UnpairedTrace(
            framework=trace.framework,
            run_id=trace.run_id,
            **trace.setting.model_dump(include={"recipe", "precision", "seed"}),
        )
        for trace in unpaired
    ]


def unpaired_line(trace: UnpairedTrace) -> str:
    others = " or ".join(name for name in FRAMEWORKS if name != trace.framework)
    return (
        f"the parity trace of {trace.run_id} ({trace.framework}, {trace.recipe}, {trace.precision}, seed {trace.seed}) "
        f"has no counterpart: record one with {others}, of the same settings"
    )


def section_parity(group: Group, pairs: Sequence[ParityPair]) -> SectionParity:
    """The parity of the runs of ``group``, as shown by ``pairs``.

    Parity holds only if the code of every run, with its precision and versions, was traced.
    """
    if group.protocol != "matched":
        return SectionParity(
            outcome="not_expected", text="parity is not expected: each framework follows its own arithmetic here"
        )
    pairs = [pair for pair in pairs if pair.recipe == group.recipe]
    failed = [pair for pair in pairs if pair.outcome in FAILED]
    if failed:
        return SectionParity(outcome="differ", text=f"parity fails: {min(failed, key=_severity).text}")
    if group.setting.reduction is not None:
        return SectionParity(outcome="not_shown", text=_IN_SHARDS)
    agreeing = [pair for pair in pairs if pair.outcome == "agree"]
    if not agreeing:
        text = f"parity is not shown: {pairs[0].text}" if pairs else "parity is not shown"
        return SectionParity(outcome="not_shown", text=f"{text}; {_HOW_TO_SHOW}")
    worst = max(agreeing, key=lambda pair: pair.largest_relative_difference or 0.0)
    shown = worst.text if len(agreeing) == 1 else f"{worst.text} (the furthest apart of {len(agreeing)} pairs)"
    untraced = _untraced_code(group.runs, agreeing)
    if untraced:
        text = f"both frameworks compute the same in what was traced: {shown}; the timed code was not traced: "
        text += "; ".join(untraced[:2]) + (f"; and {len(untraced) - 2} more" if len(untraced) > 2 else "")
        return SectionParity(outcome="not_shown", text=f"{text}; {_HOW_TO_SHOW}")
    return SectionParity(
        outcome="agree", text=f"parity holds: what was timed computes the same function in both frameworks ({shown})"
    )


def _untraced_code(runs: Sequence[RunSummary], agreeing: Sequence[ParityPair]) -> list[str]:
    """The distinct code of timed runs that no agreeing pair traced."""
    traced = {traced for pair in agreeing for traced in pair.traced_code.items()}
    timed = {(run.framework, run.code) for run in runs if run.has_training and run.code is not None}
    return sorted(
        f"{framework} {code.framework_version} in {code.precision}, {code.execution}, {code.input}, on the "
        f"{code.device.upper()}, mnist-jobs {code.package_version}"
        for framework, code in timed - traced
    )


def _severity(pair: ParityPair) -> tuple[int, int]:
    """The sort key of failures: other initial weights first, then by the earliest step, then rounding."""
    if pair.outcome == "initial_weights_differ":
        return 0, 0
    step = pair.first_step_past_tolerance
    return (1, step) if step is not None else (2, 0)
