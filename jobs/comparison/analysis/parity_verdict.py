"""What the parity traces say about the runs of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.parity import pair_traces, trace_of
from jobs.comparison.schema import SectionParity, UnpairedTrace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.analysis.parity import Trace
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import FrameworkName, ParityOutcome, ParityPair, TrainingCode

FAILED: Final[frozenset[ParityOutcome]] = frozenset({"differ", "rounds_too_coarsely", "initial_weights_differ"})
HOW_TO_SHOW: Final = "add --parity-steps 200 to one run of each framework"


def paired_traces(runs: Iterable[RunSummary]) -> tuple[list[ParityPair], list[UnpairedTrace]]:
    """Every pair of traces among ``runs``, and the traces without a counterpart.

    Raises:
        BadInput: a report with a trace has gone or changed since it was found.
    """
    # A trace is thousands of figures that nothing else needs: each is read again here, and kept packed.
    traces = (trace_of(run.whole()) for run in runs if run.has_parity)
    pairs, alone = pair_traces(trace for trace in traces if trace is not None)
    return list(pairs), [_unpaired(trace) for trace in alone]


def unpaired_line(trace: UnpairedTrace) -> str:
    other = "torch" if trace.framework == "tensorflow" else "tensorflow"
    return (
        f"the parity trace of {trace.run_id} ({trace.framework}, {trace.recipe}, {trace.precision}, seed {trace.seed}) "
        f"has no counterpart: record one with {other}, of the same settings"
    )


def section_parity(
    recipe: str, protocol: str, runs: Sequence[RunSummary], pairs: Sequence[ParityPair]
) -> SectionParity:
    """What ``pairs`` show about ``runs``, which are those of ``recipe`` under ``protocol``.

    Parity holds only where the code of every run, its precision and its releases included, is code that was traced.
    """
    if protocol != "matched":
        return SectionParity(
            outcome="not_expected", text="parity is not expected: each framework follows its own arithmetic here"
        )
    mine = [pair for pair in pairs if pair.recipe == recipe]
    failed = [pair for pair in mine if pair.outcome in FAILED]
    if failed:
        return SectionParity(outcome="differ", text=f"parity fails: {min(failed, key=_severity).text}")
    agreeing = [pair for pair in mine if pair.outcome == "agree"]
    if not agreeing:
        text = f"parity is not shown: {mine[0].text}" if mine else "parity is not shown"
        return SectionParity(outcome="not_shown", text=f"{text}; {HOW_TO_SHOW}")
    worst = max(agreeing, key=lambda pair: pair.largest_relative_difference or 0.0)
    shown = worst.text if len(agreeing) == 1 else f"{worst.text} (the furthest apart of {len(agreeing)} pairs)"
    untraced = _untraced_code(runs, agreeing)
    if untraced:
        text = f"both frameworks compute the same in what was traced: {shown}; the timed code was not traced: "
        text += "; ".join(untraced[:2]) + (f"; and {len(untraced) - 2} more" if len(untraced) > 2 else "")
        return SectionParity(outcome="not_shown", text=f"{text}; {HOW_TO_SHOW}")
    return SectionParity(
        outcome="agree", text=f"parity holds: what was timed computes the same function in both frameworks ({shown})"
    )


def _untraced_code(runs: Sequence[RunSummary], agreeing: Sequence[ParityPair]) -> list[str]:
    """The code of timed runs that no agreeing pair has traced, each once."""
    traced: set[tuple[FrameworkName, TrainingCode]] = {
        (framework, code) for pair in agreeing for framework, code in pair.traced_code.items()
    }
    timed = {(run.framework, run.code) for run in runs if run.timed}
    return sorted(_code_text(framework, code) for framework, code in timed - traced)


def _code_text(framework: FrameworkName, code: TrainingCode) -> str:
    return (
        f"{framework} {code.framework_version} in {code.precision}, {code.execution}, {code.input}, on the "
        f"{code.device.upper()}, mnist-jobs {code.package_version}"
    )


def _severity(pair: ParityPair) -> tuple[int, int]:
    """Other initial weights first, then the earliest step, then rounding."""
    if pair.outcome == "initial_weights_differ":
        return 0, 0
    step = pair.first_step_past_tolerance
    return (1, step) if step is not None else (2, 0)


def _unpaired(trace: Trace) -> UnpairedTrace:
    return UnpairedTrace(
        framework=trace.framework,
        run_id=trace.run_id,
        recipe=trace.setting.recipe,
        precision=trace.setting.precision,
        seed=trace.setting.seed,
    )
