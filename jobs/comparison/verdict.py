"""Says the verdict on a section in one sentence, with the numbers it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.metrics import HEADLINE, Missing
from jobs.comparison.model import LeftOut, MetricRatio, Verdict
from jobs.comparison.statistics import (
    CONFIDENCE,
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    RatioOfMedians,
    VerdictKind,
    judge,
)
from jobs.comparison.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.comparison.model import FrameworkName
    from jobs.comparison.run import Run

_CONFIDENCE: Final = f"{100 * CONFIDENCE:.0f} %"
_EFFECT: Final = f"{100 * (SMALLEST_EFFECT - 1):.0f} %"


def reach(sides: Mapping[FrameworkName, Sequence[Run]], ratio: MetricRatio | None) -> Verdict:
    """The verdict on the headline metric of ``sides``, whose ratio of medians is ``ratio``."""
    left_out = [entry for framework, runs in sides.items() for entry in _left_out(framework, runs)]
    if len(sides) == 1:
        (only,) = sides
        text = f"only {only} was run: there is nothing to compare it with"
        return Verdict(kind="one_side_only", metric=HEADLINE.name, faster=None, text=text, left_out=left_out)
    below, above = sides
    counts = {framework: _counted_runs(runs) for framework, runs in sides.items()}
    comparison = None if ratio is None else RatioOfMedians(ratio=ratio.ratio, low=ratio.low, high=ratio.high)
    kind = judge((counts[below], counts[above]), comparison)
    faster = (above if ratio.ratio > 1 else below) if kind == "faster" and ratio is not None else None
    text = _sentence(kind, ratio, counts)
    if left_out:
        text += "; not counted: " + ", ".join(
            f"{counted(entry.runs, f'{entry.framework} run')} ({entry.why})" for entry in left_out
        )
    return Verdict(kind=kind, metric=HEADLINE.name, faster=faster, text=text, left_out=left_out)


def _counted_runs(runs: Sequence[Run]) -> int:
    return sum(HEADLINE.counts(run) and not isinstance(run.measured[HEADLINE.name], Missing) for run in runs)


def _left_out(framework: FrameworkName, runs: Sequence[Run]) -> list[LeftOut]:
    reasons: dict[str, int] = {}
    for run in runs:
        if not HEADLINE.counts(run):
            why: str = run.status
        elif isinstance(run.measured[HEADLINE.name], Missing):
            why = "completed without the measurement"
        else:
            continue
        reasons[why] = reasons.get(why, 0) + 1
    return [LeftOut(framework=framework, why=why, runs=count) for why, count in sorted(reasons.items())]


def _sentence(kind: VerdictKind, ratio: MetricRatio | None, counts: Mapping[FrameworkName, int]) -> str:
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
            f"({_CONFIDENCE} interval {low:.3f} to {high:.3f}; {runs} runs)"
        )
    spread = f"{_CONFIDENCE} interval {ratio.low:.3f} to {ratio.high:.3f}; {runs} runs"
    medians = f"{ratio.numerator} / {ratio.denominator} is {ratio.ratio:.3f}"
    if kind == "equivalent":
        return f"equivalent in steady training speed: {medians} ({spread}), within {_EFFECT}"
    # Each of the two ways to miss a verdict has its own remedy, so they are told apart.
    if ratio.low <= 1 <= ratio.high:
        why = "the interval includes 1"
    else:
        why = f"the interval excludes 1, but the effect is under {_EFFECT}"
    return f"inconclusive: {medians} ({spread}); {why}"


def _ratio_clause(ratio: MetricRatio | None) -> str:
    if ratio is None:
        return ""
    return f" ({ratio.numerator} / {ratio.denominator} is {ratio.ratio:.3f})"
