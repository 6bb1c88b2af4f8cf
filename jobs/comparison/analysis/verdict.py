"""The verdict on a section: which framework is faster, in one sentence with its numbers."""

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
    observed,
    relative_iqr,
    verdict_kind,
)
from jobs.comparison.input.metrics import HEADLINE, Missing
from jobs.comparison.schema import ExcludedRuns, Suspect, Unstable, Verdict
from jobs.comparison.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.expected import MissingRuns
    from jobs.comparison.analysis.statistics import Significance
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import MetricRatio, VerdictKind

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]

MAX_FAILURE_RATE_GAP: Final = 0.10
"""If the faster side's failure rate exceeds the other's by more than this, the verdict is inconclusive."""

_CONFIDENCE: Final = f"{100 * CONFIDENCE:.0f} %"
_EFFECT: Final = f"{100 * (SMALLEST_EFFECT - 1):.0f} %"


def decide_verdict(
    sides: Sides,
    ratio: MetricRatio | None,
    significance: Significance | None,
    missing: Mapping[FrameworkName, MissingRuns] | None = None,
) -> Verdict:
    """The verdict on the headline metric of one or two ``sides``, whose ratio of medians is ``ratio``.

    ``missing`` runs were expected and left nothing. They count as lost, as failed runs do.
    """
    missing = missing or {}
    excluded = [
        ExcludedRuns(framework=framework, why=why, runs=count)
        for framework, runs in sides.items()
        for why, count in _tally(map(_why_excluded, runs))
    ]
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
    unstable = [
        Unstable(framework=framework, spread_ratio=spread)
        for framework, runs in sides.items()
        if (spread := relative_iqr(observed(runs))) is not None and spread > UNSTABLE_SPREAD
    ]
    kind, faster, text = _judge_sides(sides, ratio, significance, missing)
    remarks = {
        "unstable": [
            f"{side.framework}'s runs spread over {100 * side.spread_ratio:.0f} % of their median" for side in unstable
        ],
        "disturbed, by their own account": [_runs_text(row.framework, row.runs, row.cause) for row in suspect],
        "not counted": [_runs_text(row.framework, row.runs, row.why) for row in excluded],
    }
    return Verdict(
        kind=kind,
        metric=HEADLINE.name,
        faster=faster,
        p_value=significance and significance.p,
        p_value_table=significance and significance.p_corrected,
        text="; ".join([text, *(f"{name}: {', '.join(texts)}" for name, texts in remarks.items() if texts)]),
        left_out=excluded,
        suspect=suspect,
        unstable=unstable,
    )


def _tally(reasons: Iterable[str | None]) -> list[tuple[str, int]]:
    return sorted(Counter(reason for reason in reasons if reason is not None).items())


def _why_excluded(run: RunSummary) -> str | None:
    if not HEADLINE.counts(run.status):
        return run.status
    return "completed without the measurement" if isinstance(run.measured[HEADLINE.name], Missing) else None


def _runs_text(framework: FrameworkName, runs: int, reason: str) -> str:
    return f"{pluralize(runs, f'{framework} run')} ({reason})"


def _judge_sides(
    sides: Sides,
    ratio: MetricRatio | None,
    significance: Significance | None,
    missing: Mapping[FrameworkName, MissingRuns],
) -> tuple[VerdictKind, FrameworkName | None, str]:
    """The kind of verdict, the faster framework if there is one, and the sentence."""
    if len(sides) == 1:
        (only,) = sides
        return "one_side_only", None, f"only {only} was run: there is nothing to compare it with"
    below, above = sides
    counts = {framework: len(observed(runs)) for framework, runs in sides.items()}
    kind = verdict_kind((counts[below], counts[above]), ratio, significance)
    text = _sentence(kind, ratio, counts, significance)
    faster = (above if ratio.ratio > 1 else below) if kind == "faster" and ratio is not None else None
    started = {framework: len(runs) for framework, runs in sides.items()}
    for framework in started.keys() & missing.keys():
        started[framework] += missing[framework].runs
    lost_ratio = {framework: 1 - counts[framework] / started[framework] for framework in sides}
    # A side must not appear fast because its slow runs failed. Equivalent sides are checked both ways.
    for side, other in ((below, above), (above, below)):
        if (side == faster or kind == "equivalent") and lost_ratio[side] - lost_ratio[other] > MAX_FAILURE_RATE_GAP:
            lost = f"{started[side] - counts[side]} of {side}'s {started[side]} runs"
            others_lost = f"{started[other] - counts[other]} of {other}'s {started[other]}"
            text = f"inconclusive: {lost} did not complete, against {others_lost}; counting only those that did, {text}"
            return "inconclusive", None, text
    return kind, faster, text


def _sentence(
    kind: VerdictKind,
    ratio: MetricRatio | None,
    counts: Mapping[FrameworkName, int],
    significance: Significance | None,
) -> str:
    runs = " and ".join(f"{count} {framework}" for framework, count in counts.items())
    medians = "" if ratio is None else f"{ratio.numerator} / {ratio.denominator} is {ratio.ratio:.3f}"
    in_brackets = medians and f" ({medians})"
    if kind == "single_observation":
        return f"single observation, one run a side{in_brackets}; a verdict needs {RUNS_FOR_A_VERDICT} a side"
    if kind == "too_few_runs":
        needed = f"{RUNS_FOR_A_VERDICT} a side are needed"
        return f"too few runs for a verdict: {runs} with a measured speed, {needed}{in_brackets}"
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"inconclusive: the ratio of medians cannot be formed from these speeds ({runs} runs)"
    names = ratio.numerator, ratio.denominator
    factor, low, high = ratio.ratio, ratio.low, ratio.high
    if kind == "faster" and factor < 1:
        names = ratio.denominator, ratio.numerator
        factor, low, high = 1 / factor, 1 / high, 1 / low
    numbers = f"{_CONFIDENCE} interval {low:.3f} to {high:.3f}; {runs} runs{_p_clause(significance)}"
    if kind == "faster":
        return f"{names[0]} is faster: {factor:.3f} times the steady training speed of {names[1]} ({numbers})"
    if kind == "equivalent":
        return f"equivalent in steady training speed: {medians} ({numbers}), within {_EFFECT}"
    return f"inconclusive: {medians} ({numbers}); {_why_inconclusive(factor, low, high, significance)}"


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
