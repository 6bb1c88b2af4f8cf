"""The gate: these runs against earlier ones, framework by framework, with what the earlier ones let one see."""

from __future__ import annotations

from collections import defaultdict
from math import expm1, log, pi, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from jobs.comparison.analysis.attribution import UPGRADE_FIELDS, attribute, changes
from jobs.comparison.analysis.comparability import DATA_FIELD
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT, SMALLEST_EFFECT
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.fields import FIELDS, show_value
from jobs.comparison.input.metrics import COMPLETED, METRICS, Metric, Missing
from jobs.comparison.schema import EnvironmentChange, Gate, GateMetric, GateSide
from jobs.comparison.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import GateOutcome

    Key = tuple[str, str, str]

GATE_ALPHA: Final = 0.005
"""How often one metric of runs like the baseline's may fall outside what is tolerated, on its bad side."""

RATIO_FLOOR: Final = SMALLEST_EFFECT - 1
"""The least change of a speed or a time that counts, as a share."""

ACCURACY_FLOOR: Final = 0.002
"""The least change of an accuracy that counts: 20 of MNIST's 10,000 test images."""

_BETTER: Final = {"steady_images_per_s": 1, "train_wall_s": -1, "test_accuracy_ratio": 1}
"""The metrics that are gated, and whether more is better (1) or worse (-1)."""

_LARGEST: Final = 700.0
"""The largest power of e that is a float."""

_MEDIAN: Final = sqrt(pi / 2)
"""The standard error of a median over that of a mean, in normal noise."""


def gate(now: Sequence[RunSummary], before: Sequence[RunSummary], *, allow: Iterable[str] = ()) -> Gate:
    """Compare ``now`` with ``before``, the baseline, for each recipe, protocol and framework of either.

    ``allow`` names compared fields that may differ between then and now.
    """
    allowed = frozenset(allow) | UPGRADE_FIELDS
    then, today = _by_side(before), _by_side(now)
    sides = [_side(key, today.get(key, []), then.get(key, []), allowed) for key in sorted({*then, *today})]
    outcomes = {side.outcome for side in sides}
    outcome: GateOutcome = next(
        (worst for worst in ("regression", "incomparable", "improvement") if worst in outcomes), "unchanged"
    )
    return Gate(outcome=outcome, false_alarms_ratio=GATE_ALPHA, sides=sides, triage=_triage(sides))


def _by_side(runs: Iterable[RunSummary]) -> dict[Key, list[RunSummary]]:
    sides: dict[Key, list[RunSummary]] = defaultdict(list)
    for run in filter(lambda run: run.timed, runs):
        sides[run.recipe, run.protocol, run.framework].append(run)
    return sides


def _side(key: Key, now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> GateSide:
    refusal = _refusal(now, before, allowed)
    changed = changes(before, now) if now and before else ()
    metrics = [] if refusal else [_metric(metric, now, before) for metric in METRICS if metric.name in _BETTER]
    lost = None if refusal else _lost(now, before)
    outcome: GateOutcome = "incomparable"
    text = f"incomparable: {refusal}"
    if not refusal:
        outcome, text = _outcome(metrics, lost)
        text += f"; {attribute(changed)}"
    recipe, protocol, framework = key
    return GateSide.model_validate(
        {
            "recipe": recipe,
            "protocol": protocol,
            "framework": framework,
            "outcome": outcome,
            "text": text,
            "runs_before": len(before),
            "runs_now": len(now),
            "metrics": metrics,
            "changes": [
                EnvironmentChange(field=change.field, before=list(change.before), now=list(change.now))
                for change in changed
            ],
        }
    )


def _refusal(now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> str | None:
    if not before:
        return "the baseline has no such runs; add them to it"
    if not now:
        return "the baseline has such runs, and there are none now; run them, or leave them out of the baseline"
    measured = sum(run.status in COMPLETED for run in before)
    if measured < RUNS_FOR_A_VERDICT:
        return f"the baseline has {counted(measured, 'completed run')}, its variance needs {RUNS_FOR_A_VERDICT}"
    differing = [f"{name} ({then} → {today})" for name, then, today in _differing(now, before, allowed)]
    return f"these differ: {', '.join(differing)}" if differing else None


def _differing(
    now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]
) -> Iterable[tuple[str, str, str]]:
    old, new = ({run.dataset.sha256 for run in runs} for runs in (before, now))
    if len(old | new) > 1:
        yield DATA_FIELD, ", ".join(sorted(old)), ", ".join(sorted(new))
    for at, field in enumerate(FIELDS):
        then, today = ({run.compared[at] for run in runs} for runs in (before, now))
        if field.path not in allowed and len(_known(then | today)) > 1:
            yield field.path, _shown(then), _shown(today)


def _known(values: Iterable[Value]) -> set[Value]:
    # A run that ended early may not have come to know its device; what it does not know does not differ.
    found = set(values)
    return found - {None} or found


def _shown(values: Iterable[Value]) -> str:
    return ", ".join(sorted(show_value(value) for value in _known(values)))


def _values(metric: Metric, runs: Iterable[RunSummary]) -> list[float]:
    values = (run.measured[metric.name] for run in runs if metric.counts(run))
    return sorted(value for value in values if not isinstance(value, Missing))


def _metric(metric: Metric, now: Sequence[RunSummary], before: Sequence[RunSummary]) -> GateMetric:
    then, today = _values(metric, before), _values(metric, now)
    as_ratio = metric.unit != "ratio"
    change = tolerance = None
    outcome = "not_measured"
    if len(then) >= RUNS_FOR_A_VERDICT and today and (not as_ratio or min(then[0], today[0]) > 0):
        old, new = float(np.quantile(then, 0.5)), float(np.quantile(today, 0.5))
        change = log(new) - log(old) if as_ratio else new - old
        tolerance = _tolerance([log(value) for value in then] if as_ratio else then, len(today))
        floor = log(1 + RATIO_FLOOR) if as_ratio else ACCURACY_FLOOR
        tolerance = max(tolerance, floor)
        good = change * _BETTER[metric.name]
        outcome = "worse" if good < -tolerance else "better" if good > tolerance else "within"
        if as_ratio:
            change, tolerance = _share(change), _share(tolerance)
    return GateMetric.model_validate(
        {
            "name": metric.name,
            "unit": metric.unit,
            "n_before": len(then),
            "n_now": len(today),
            "median_before": float(np.quantile(then, 0.5)) if then else None,
            "median_now": float(np.quantile(today, 0.5)) if today else None,
            "change": change,
            "tolerated": tolerance,
            "outcome": outcome,
        }
    )


def _share(logarithm: float) -> float:
    """The change that ``logarithm`` of a ratio is, within a float's range."""
    return expm1(min(logarithm, _LARGEST))


def _tolerance(then: Sequence[float], n_now: int) -> float:
    """How far the median of ``n_now`` more runs may lie from the baseline's: a one-sided prediction bound."""
    n = len(then)
    quantile = float(stats.t.ppf(1 - GATE_ALPHA, n - 1))
    return quantile * float(np.std(then, ddof=1)) * _MEDIAN * sqrt(1 / n + 1 / n_now)


def _lost(now: Sequence[RunSummary], before: Sequence[RunSummary]) -> str | None:
    gone, were_gone = (sum(run.status not in COMPLETED for run in runs) for runs in (now, before))
    if gone / len(now) - were_gone / len(before) <= MAX_FAILURE_RATE_GAP:
        return None
    return f"{gone} of {counted(len(now), 'run')} did not complete, against {were_gone} of {len(before)} before"


def _outcome(metrics: Sequence[GateMetric], lost: str | None) -> tuple[GateOutcome, str]:
    worse = [_clause(metric) for metric in metrics if metric.outcome == "worse"]
    better = [_clause(metric) for metric in metrics if metric.outcome == "better"]
    reasons = [*([lost] if lost else []), *worse]
    if reasons:
        text = f"regression: {', '.join(reasons)}"
        return "regression", f"{text}; better all the same: {', '.join(better)}" if better else text
    if better:
        return "improvement", f"improvement: {', '.join(better)}"
    measured = [_clause(metric) for metric in metrics if metric.outcome == "within"]
    return "unchanged", f"unchanged: {', '.join(measured[:1]) or 'nothing was measured on both sides'}"


def _clause(metric: GateMetric) -> str:
    shown = {found.name: found for found in METRICS}[metric.name]
    if metric.change is None or metric.tolerated is None or metric.median_now is None or metric.median_before is None:
        return f"{shown.label} not measured"
    unit = "points" if metric.unit == "ratio" else "%"
    return (
        f"{shown.label} {shown.shown(metric.median_before)} → {shown.shown(metric.median_now)} "
        f"{'%' if metric.unit == 'ratio' else metric.unit} "
        f"({100 * metric.change:+.2f} {unit}, tolerated {100 * metric.tolerated:.2f}; "
        f"{metric.n_now} against {counted(metric.n_before, 'run')})"
    )


def _triage(sides: Sequence[GateSide]) -> list[str]:
    """Where to look first, for each recipe and protocol that both frameworks ran."""
    found: list[str] = []
    pairs: Mapping[tuple[str, str], list[GateSide]] = defaultdict(list)
    for side in sides:
        if side.outcome != "incomparable":
            pairs[side.recipe, side.protocol].append(side)
    for (recipe, protocol), pair in pairs.items():
        slow = [side for side in pair if _slower(side)]
        if len(pair) < 2 or not slow:
            continue
        if len(slow) == len(pair):
            text = "both frameworks are slower: look at what they share, the node or the driver"
        else:
            text = f"only {slow[0].framework} is slower: look at its image or the framework itself"
        found.append(f"{recipe}, {protocol}: {text}")
    return found


def _slower(side: GateSide) -> bool:
    return any(metric.name == "steady_images_per_s" and metric.outcome == "worse" for metric in side.metrics)
