"""The verdict on a section: which framework is faster, in one sentence with its numbers."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.evidence import counted, why_excluded
from jobs.comparison.analysis.next_step import duel_command
from jobs.comparison.analysis.permutation import UNITS_FOR_SIGNS
from jobs.comparison.analysis.statistics import (
    ALPHA,
    CONFIDENCE,
    FAMILYWISE_ALPHA,
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    UNSTABLE_SPREAD,
    observed,
    relative_iqr,
    verdict_kind,
)
from jobs.comparison.input.metrics import HEADLINE
from jobs.comparison.schema import ExcludedRuns, Suspect, Unchecked, Unstable, Verdict
from jobs.comparison.text import pluralize, ratio_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.design import Design
    from jobs.comparison.analysis.evidence import Evidence
    from jobs.comparison.analysis.expected import MissingRuns
    from jobs.comparison.analysis.statistics import Significance
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import ComparedUnits, MetricRatio, VerdictKind

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]

MAX_FAILURE_RATE_GAP: Final = 0.10
"""If the faster side's failure rate exceeds the other's by more than this, the verdict is inconclusive."""

MAX_LOST_RUNS_GAP_IN_BLOCKS: Final = 1
"""In blocks the faster side may lose this many runs more than the other, whatever share they are.

A duel replaces a lost block by another, so one killed run takes no block away. Of 8 to 9 runs it is more than 10 %.
Runs that are not in blocks have no such rule: there a slow run that failed may be what makes its side look fast.
"""

_CONFIDENCE: Final = f"{100 * CONFIDENCE:.0f} %"
_EFFECT: Final = f"{100 * (SMALLEST_EFFECT - 1):.0f} %"


def decide_verdict(
    sides: Sides,
    evidence: Evidence | None,
    significance: Significance | None,
    missing: Mapping[FrameworkName, MissingRuns] | None = None,
) -> Verdict:
    """The verdict on the headline metric of one or two ``sides``; ``evidence`` is ``None`` for one.

    ``missing`` runs were expected and left nothing. They count as lost, as failed runs do.
    """
    missing = missing or {}
    design = evidence and evidence.design
    excluded = _excluded(sides, design)
    excluded += [
        ExcludedRuns(framework=framework, why=f"missing: {absent.which}", runs=absent.runs)
        for framework, absent in missing.items()
    ]
    suspect = [
        Suspect(framework=framework, cause=cause, runs=count)
        for framework, runs in sides.items()
        for cause, count in _tally(
            cause for run in runs if HEADLINE.counts(run.status) for cause in set(run.suspect_of)
        )
    ]
    unchecked = [
        Unchecked(framework=framework, not_checked=what, runs=count)
        for framework, runs in sides.items()
        for what, count in _tally(", ".join(run.unchecked) or None for run in counted(runs))
    ]
    unstable = [
        Unstable(framework=framework, spread_ratio=spread)
        for framework, runs in sides.items()
        if (spread := relative_iqr(observed(counted(runs)))) is not None and spread > UNSTABLE_SPREAD
    ]
    kind, faster, text = _judge_sides(sides, evidence, significance, missing)
    confounded = None if design is None else design.confounded
    next_step = None if confounded is None else duel_command(sides)
    notes = {
        "unstable": [
            f"{side.framework}'s runs spread over {100 * side.spread_ratio:.0f} % of their median" for side in unstable
        ],
        "disturbed, by their own account": [_runs_text(row.framework, row.runs, row.cause) for row in suspect],
        "not checked for disturbances": [_runs_text(row.framework, row.runs, row.not_checked) for row in unchecked],
        "not counted": [_runs_text(row.framework, row.runs, row.why) for row in excluded],
        "note": [] if design is None else design.remarks,
        "to answer it": [] if next_step is None else [next_step],
    }
    return Verdict(
        kind=kind,
        metric=HEADLINE.name,
        faster=faster,
        p_value=significance and significance.p,
        p_value_table=significance and significance.p_corrected,
        text="; ".join([text, *(f"{name}: {', '.join(texts)}" for name, texts in notes.items() if texts)]),
        confounded_by=confounded and confounded.by,
        next_step=next_step,
        units=evidence and evidence.units,
        left_out=excluded,
        suspect=suspect,
        unchecked=unchecked,
        unstable=unstable,
        remarks=[] if design is None else design.remarks,
    )


def _excluded(sides: Sides, design: Design | None) -> list[ExcludedRuns]:
    """The runs that are not counted: for what they are, then for what the design lacks."""
    lacking = [] if design is None else design.left_out
    return [
        ExcludedRuns(framework=framework, why=why, runs=count)
        for framework, runs in sides.items()
        for reasons in (map(why_excluded, runs), (why for run, why in lacking if run.framework == framework))
        for why, count in _tally(reasons)
    ]


def _tally(reasons: Iterable[str | None]) -> list[tuple[str, int]]:
    return sorted(Counter(reason for reason in reasons if reason is not None).items())


def _runs_text(framework: FrameworkName, runs: int, reason: str) -> str:
    return f"{pluralize(runs, f'{framework} run')} ({reason})"


def _judge_sides(
    sides: Sides,
    evidence: Evidence | None,
    significance: Significance | None,
    missing: Mapping[FrameworkName, MissingRuns],
) -> tuple[VerdictKind, FrameworkName | None, str]:
    """The kind of verdict, the faster framework if there is one, and the sentence."""
    if len(sides) == 1 or evidence is None:
        (only,) = sides
        return "one_side_only", None, f"only {only} was run: there is nothing to compare it with"
    below, above = sides
    ratio, design, units = evidence.ratio, evidence.design, evidence.units
    counts = {framework: len(counted(runs)) for framework, runs in sides.items()}
    kind = verdict_kind((counts[below], counts[above]), ratio, significance)
    if kind not in ("single_observation", "too_few_runs"):
        if design is not None and design.confounded is not None:
            lacking = Counter(run.framework for run, _ in design.left_out)
            compared = {framework: count - lacking[framework] for framework, count in counts.items()}
            numbers = ", ".join([*([_medians(ratio)] if ratio else []), f"{_runs(compared)} runs"])
            return "confounded", None, f"confounded: {design.confounded.text} ({numbers})"
        if (
            design is not None
            and min(*design.runs, len(design.parts) if design.in_blocks else sys.maxsize) < RUNS_FOR_A_VERDICT
        ):
            return "too_few_runs", None, _too_few_units(design, sides)
    text = _sentence(kind, ratio, counts, units, significance)
    if design is not None and design.confounded is not None:
        text = f"{text}; {design.confounded.text}"
    faster = (above if ratio.ratio > 1 else below) if kind == "faster" and ratio is not None else None
    started = {framework: len(runs) for framework, runs in sides.items()}
    for framework in started.keys() & missing.keys():
        started[framework] += missing[framework].runs
    lost = {framework: started[framework] - counts[framework] for framework in sides}
    lost_ratio = {framework: lost[framework] / started[framework] for framework in sides}
    allowed = MAX_LOST_RUNS_GAP_IN_BLOCKS if design is not None and design.in_blocks else 0
    # A side must not appear fast because its slow runs failed. Equivalent sides are checked both ways.
    for side, other in ((below, above), (above, below)):
        too_many = lost_ratio[side] - lost_ratio[other] > MAX_FAILURE_RATE_GAP and lost[side] - lost[other] > allowed
        if too_many and (side == faster or kind == "equivalent"):
            these = f"{lost[side]} of {side}'s {started[side]} runs"
            others = f"{lost[other]} of {other}'s {started[other]}"
            disturbed = any(run.suspect_of for runs in sides.values() for run in runs)
            how = "did not complete undisturbed" if disturbed else "did not complete"
            text = f"inconclusive: {these} {how}, against {others}; counting only those that did, {text}"
            return "inconclusive", None, text
    return kind, faster, text


def _too_few_units(design: Design, sides: Sides) -> str:
    if design.in_blocks:
        found = f"{pluralize(len(design.parts), 'whole block')}, {RUNS_FOR_A_VERDICT} are needed"
        return f"too few blocks for a verdict: {found}, and {UNITS_FOR_SIGNS} for a faster side"
    runs = _runs(dict(zip(sides, design.runs, strict=True)))
    return f"too few runs for a verdict: {runs} runs on shared nodes and GPUs, {RUNS_FOR_A_VERDICT} a side are needed"


def _runs(counts: Mapping[FrameworkName, int]) -> str:
    return " and ".join(f"{count} {framework}" for framework, count in counts.items())


def _medians(ratio: MetricRatio) -> str:
    return f"{ratio.numerator} / {ratio.denominator} is {ratio_text(ratio.ratio)}"


def _units_text(units: ComparedUnits | None, counts: Mapping[FrameworkName, int]) -> str:
    if units is None:
        return f"{_runs(counts)} runs"
    text = f"{_runs(units.runs)} runs" if units.blocks is None else pluralize(units.blocks, "block")
    return text if units.nodes == 1 else f"{text} on {units.nodes} nodes, a node is one observation"


def _sentence(
    kind: VerdictKind,
    ratio: MetricRatio | None,
    counts: Mapping[FrameworkName, int],
    units: ComparedUnits | None,
    significance: Significance | None,
) -> str:
    medians = "" if ratio is None else _medians(ratio)
    in_brackets = medians and f" ({medians})"
    if kind == "single_observation":
        return f"single observation, one run a side{in_brackets}; a verdict needs {RUNS_FOR_A_VERDICT} a side"
    if kind == "too_few_runs":
        needed = f"{RUNS_FOR_A_VERDICT} a side are needed"
        return f"too few runs for a verdict: {_runs(counts)} with a measured speed, {needed}{in_brackets}"
    over = _units_text(units, counts)
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"inconclusive: the ratio cannot be formed from these speeds ({over})"
    names = ratio.numerator, ratio.denominator
    factor, low, high = ratio.ratio, ratio.low, ratio.high
    if kind == "faster" and factor < 1:
        names = ratio.denominator, ratio.numerator
        factor, low, high = 1 / factor, 1 / high, 1 / low
    numbers = f"{_CONFIDENCE} interval {ratio_text(low)} to {ratio_text(high)}; {over}{_p_clause(significance)}"
    if kind == "faster":
        return f"{names[0]} is faster: {ratio_text(factor)} times the steady training speed of {names[1]} ({numbers})"
    if kind == "equivalent":
        return f"equivalent in steady training speed: {medians} ({numbers}), within {_EFFECT}"
    why = _why_inconclusive(factor, low, high, significance)
    if units is not None and units.blocks is not None and units.blocks < UNITS_FOR_SIGNS and not low <= 1 <= high:
        why += f"; {UNITS_FOR_SIGNS} blocks are needed for a faster side"
    if units is not None and _has_one_run_a_node(units) and not low <= 1 <= high:
        why += "; at least two runs a side and node are needed for a faster side"
    return f"inconclusive: {medians} ({numbers}); {why}"


def _has_one_run_a_node(units: ComparedUnits) -> bool:
    """Whether a side has one run on each of a few nodes, not in blocks: then its noise on a node is not known."""
    return units.blocks is None and 1 < units.nodes < UNITS_FOR_SIGNS and min(units.runs.values()) == units.nodes


def _why_inconclusive(ratio: float, low: float, high: float, significance: Significance | None) -> str:
    # Named, since more runs help against some reasons only.
    if low <= 1 <= high:
        return "the interval includes 1"
    if max(ratio, 1 / ratio) < SMALLEST_EFFECT:
        return f"the interval excludes 1, but the effect is under {_EFFECT}"
    if significance is not None and significance.p <= ALPHA:
        return f"in a table of this size, such a difference can be chance: the corrected p exceeds {FAMILYWISE_ALPHA:g}"
    return f"the interval excludes 1, but a difference this large can be chance: p exceeds {ALPHA:g}"


def _p_clause(significance: Significance | None) -> str:
    if significance is None:
        return ""
    over_table = (
        "" if significance.p == significance.p_corrected else f", {significance.p_corrected:.2g} over this table"
    )
    return f"; p {significance.p:.2g}{over_table}"
