"""Says the verdict on a section in one sentence, with the numbers it rests on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.statistics import (
    ALPHA,
    CONFIDENCE,
    FAMILYWISE_ALPHA,
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    UNSTABLE_SPREAD,
    RatioOfMedians,
    Significance,
    judge,
    spread,
    summarise,
)
from jobs.comparison.input.metrics import HEADLINE, Missing
from jobs.comparison.schema import ExcludedRuns, MetricRatio, Suspect, Unstable, Verdict
from jobs.comparison.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import FrameworkName, VerdictKind

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]

MAX_FAILURE_RATE_GAP: Final = 0.10
"""How much larger a share of its runs the faster side may lose than the other: no speed is bought with failures."""

_CONFIDENCE: Final = f"{100 * CONFIDENCE:.0f} %"
_EFFECT: Final = f"{100 * (SMALLEST_EFFECT - 1):.0f} %"


def headline_values(runs: Sequence[RunSummary]) -> list[float]:
    """The headline of every run whose headline counts."""
    return [
        value for run in runs if HEADLINE.counts(run) and not isinstance(value := run.measured[HEADLINE.name], Missing)
    ]


def reach(sides: Sides, ratio: MetricRatio | None, significance: Significance | None) -> Verdict:
    """The verdict on the headline metric of ``sides``, whose ratio of medians is ``ratio``."""
    left_out = [entry for framework, runs in sides.items() for entry in _left_out(framework, runs)]
    values = {framework: headline_values(runs) for framework, runs in sides.items()}
    unstable = [entry for framework, side in values.items() for entry in _unstable(framework, side)]
    kind, faster, text = _reserve_attempt_number(sides, values, ratio, significance)
    if unstable:
        text += "; unstable: " + ", ".join(
            f"{entry.framework}'s runs spread over {100 * entry.spread_ratio:.0f} % of their median"
            for entry in unstable
        )
    suspect = [entry for framework, runs in sides.items() for entry in _suspect(framework, runs)]
    if suspect:
        text += "; disturbed, by their own account: " + ", ".join(
            f"{counted(entry.runs, f'{entry.framework} run')} ({entry.cause})" for entry in suspect
        )
    if left_out:
        text += "; not counted: " + ", ".join(
            f"{counted(entry.runs, f'{entry.framework} run')} ({entry.why})" for entry in left_out
        )
    return Verdict(
        kind=kind,
        metric=HEADLINE.name,
        faster=faster,
        p_value=None if significance is None else significance.p,
        p_value_table=None if significance is None else significance.p_table,
        text=text,
        left_out=left_out,
        suspect=suspect,
        unstable=unstable,
    )


def _reserve_attempt_number(
    sides: Sides,
    values: Mapping[FrameworkName, Sequence[float]],
    ratio: MetricRatio | None,
    significance: Significance | None,
) -> tuple[VerdictKind, FrameworkName | None, str]:
    if len(sides) == 1:
        (only,) = sides
        return "one_side_only", None, f"only {only} was run: there is nothing to compare it with"
    below, above = sides
    counts = {framework: len(side) for framework, side in values.items()}
    comparison = None if ratio is None else RatioOfMedians(ratio=ratio.ratio, low=ratio.low, high=ratio.high)
    kind = judge((counts[below], counts[above]), comparison, significance)
    text = _sentence(kind, ratio, counts, significance)
    lost = {framework: 1 - counts[framework] / len(runs) for framework, runs in sides.items()}
    faster = (above if ratio.ratio > 1 else below) if kind == "faster" and ratio is not None else None
    suspects = [faster] if faster is not None else [below, above] if kind == "equivalent" else []
    for side in suspects:
        other = above if side == below else below
        if lost[side] - lost[other] > MAX_FAILURE_RATE_GAP:
            runs = f"{len(sides[side]) - counts[side]} of {side}'s {len(sides[side])} runs"
            theirs = f"{len(sides[other]) - counts[other]} of {other}'s {len(sides[other])}"
            return (
                "inconclusive",
                None,
                f"inconclusive: {runs} did not complete, against {theirs}; counting only those that did, {text}",
            )
    return kind, faster, text


def _left_out(framework: FrameworkName, runs: Sequence[RunSummary]) -> list[ExcludedRuns]:
    reasons: dict[str, int] = {}
    for run in runs:
        if not HEADLINE.counts(run):
            why: str = run.status
        elif isinstance(run.measured[HEADLINE.name], Missing):
            why = "completed without the measurement"
        else:
            continue
        reasons[why] = reasons.get(why, 0) + 1
    return [ExcludedRuns(framework=framework, why=why, runs=count) for why, count in sorted(reasons.items())]


def _suspect(framework: FrameworkName, runs: Sequence[RunSummary]) -> list[Suspect]:
    causes = Counter(cause for run in runs if HEADLINE.counts(run) for cause in set(run.suspect_of))
    return [Suspect(framework=framework, cause=cause, runs=count) for cause, count in sorted(causes.items())]


def _unstable(framework: FrameworkName, values: Sequence[float]) -> list[Unstable]:
    summary = summarise(values)
    found = None if summary is None else spread(summary)
    return [] if found is None or found <= UNSTABLE_SPREAD else [Unstable(framework=framework, spread_ratio=found)]


def _sentence(
    kind: VerdictKind,
    ratio: MetricRatio | None,
    counts: Mapping[FrameworkName, int],
    significance: Significance | None,
) -> str:
    runs = " and ".join(f"{count} {framework}" for framework, count in counts.items())
    if kind == "single_observation":
        return f"single observation, one run a side{_ratio_clause(ratio)}; a verdict needs {RUNS_FOR_A_VERDICT} a side"
    if kind == "too_few_runs":
        return (
            f"too few runs for a verdict: {runs} with a measured speed, {RUNS_FOR_A_VERDICT} a side are needed"
            f"{_ratio_clause(ratio)}"
        )
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"inconclusive: the ratio of medians cannot be formed from these speeds ({runs} runs)"
    if kind == "faster":
        if ratio.ratio > 1:
            winner, loser, factor, low, high = ratio.numerator, ratio.denominator, ratio.ratio, ratio.low, ratio.high
        else:
            winner, loser = ratio.denominator, ratio.numerator
            factor, low, high = 1 / ratio.ratio, 1 / ratio.high, 1 / ratio.low
        return (
            f"{winner} is faster: {factor:.3f} times the steady training speed of {loser} "
            f"({_CONFIDENCE} interval {low:.3f} to {high:.3f}; {runs} runs{_p_clause(significance)})"
        )
    numbers = f"{_CONFIDENCE} interval {ratio.low:.3f} to {ratio.high:.3f}; {runs} runs{_p_clause(significance)}"
    medians = f"{ratio.numerator} / {ratio.denominator} is {ratio.ratio:.3f}"
    if kind == "equivalent":
        return f"equivalent in steady training speed: {medians} ({numbers}), within {_EFFECT}"
    return f"inconclusive: {medians} ({numbers}); {_why_inconclusive(ratio, significance)}"


def _why_inconclusive(ratio: MetricRatio, significance: Significance | None) -> str:
    # Each of the ways to miss a verdict has its own remedy, so they are told apart.
    assert ratio.low is not None
    assert ratio.high is not None
    if ratio.low <= 1 <= ratio.high:
        return "the interval includes 1"
    if max(ratio.ratio, 1 / ratio.ratio) < SMALLEST_EFFECT:
        return f"the interval excludes 1, but the effect is under {_EFFECT}"
    if significance is not None and significance.p <= ALPHA:
        return f"one of so many comparisons shows as much by chance: p over this table exceeds {FAMILYWISE_ALPHA:g}"
    return f"the interval excludes 1, but runs like these show as much by chance: p exceeds {ALPHA:g}"


def _p_clause(significance: Significance | None) -> str:
    if significance is None:
        return ""
    if significance.p == significance.p_table:
        return f"; p {significance.p:.2g}"
    return f"; p {significance.p:.2g}, {significance.p_table:.2g} over this table"


def _ratio_clause(ratio: MetricRatio | None) -> str:
    if ratio is None:
        return ""
    return f" ({ratio.numerator} / {ratio.denominator} is {ratio.ratio:.3f})"
