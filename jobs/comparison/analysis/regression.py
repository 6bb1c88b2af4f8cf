"""The regression gate: compares runs with a baseline of earlier ones, by framework."""

from __future__ import annotations

from collections import defaultdict
from math import expm1, log, pi, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from jobs.comparison.analysis.attribution import UPGRADE_FIELDS, attribute, changes, known_values
from jobs.comparison.analysis.comparability import DATA_FIELD
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT, SMALLEST_EFFECT, median, observed
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.fields import FIELDS
from jobs.comparison.input.metrics import COMPLETED, HEADLINE, METRIC_BY_NAME, METRICS, Metric
from jobs.comparison.schema import Gate, GateMetric, GateSide
from jobs.comparison.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal

    from jobs.choices import FrameworkName
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import GateOutcome

    Key = tuple[str, Literal["matched", "published"], FrameworkName]

GATE_ALPHA: Final = 0.005
"""False alarm rate of one metric: how often unchanged runs are worse than the tolerance."""

RATIO_FLOOR: Final = SMALLEST_EFFECT - 1
"""The smallest change of a speed or a time that counts, as a share."""

ACCURACY_FLOOR: Final = 0.002
"""The smallest change of an accuracy that counts: 20 of MNIST's 10,000 test images."""

_DIRECTION: Final = {"steady_images_per_s": 1, "train_wall_s": -1, "test_accuracy_ratio": 1}
"""The gated metrics: 1 if more is better, -1 if less is."""

_MAX_EXPONENT: Final = 700.0
"""About the largest power of e that is a float."""

_MEDIAN_ERROR: Final = sqrt(pi / 2)
"""The standard error of a median over that of a mean, in normal noise."""


def gate(now: Sequence[RunSummary], before: Sequence[RunSummary], *, allow: Iterable[str] = ()) -> Gate:
    """Compare ``now`` with the baseline ``before``, for each recipe, protocol and framework of either.

    ``allow`` names compared fields that may differ between the two; the data may never differ.
    """
    allowed = (frozenset(allow) | UPGRADE_FIELDS) - {DATA_FIELD}
    old, new = _by_side(before), _by_side(now)
    sides = [_side(key, new.get(key, []), old.get(key, []), allowed) for key in sorted({*old, *new})]
    order: tuple[GateOutcome, ...] = ("regression", "incomparable", "improvement")
    outcome: GateOutcome = next((worst for worst in order if worst in {side.outcome for side in sides}), "unchanged")
    return Gate(outcome=outcome, false_alarms_ratio=GATE_ALPHA, sides=sides, triage=_triage(sides))


def _by_side(runs: Iterable[RunSummary]) -> dict[Key, list[RunSummary]]:
    sides: dict[Key, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.has_training:
            sides[run.recipe, run.protocol, run.framework].append(run)
    return sides


def _side(key: Key, now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> GateSide:
    refusal = _refusal(now, before, allowed)
    changed = changes(before, now)
    metrics = [] if refusal else [_metric(metric, now, before) for metric in METRICS if metric.name in _DIRECTION]
    outcome, text = ("incomparable", f"incomparable: {refusal}") if refusal else _outcome(metrics, _lost(now, before))
    return GateSide(
        recipe=key[0],
        protocol=key[1],
        framework=key[2],
        outcome=outcome,
        text=text if refusal else f"{text}; {attribute(changed)}",
        runs_before=len(before),
        runs_now=len(now),
        metrics=metrics,
        changes=changed,
    )


def _refusal(now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> str | None:
    """Why ``now`` cannot be compared with ``before``, ``None`` where it can."""
    if not before:
        return "the baseline has no such runs; add them to it"
    if not now:
        return "the baseline has such runs, and there are none now; run them, or leave them out of the baseline"
    measured = sum(run.status in COMPLETED for run in before)
    if measured < RUNS_FOR_A_VERDICT:
        return f"the baseline has {pluralize(measured, 'completed run')}, its variance needs {RUNS_FOR_A_VERDICT}"
    differing = list(_differing(now, before, allowed))
    return f"these differ: {', '.join(differing)}" if differing else None


def _differing(now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> Iterator[str]:
    """``field (earlier values → present values)`` for each field that differs and is not allowed to."""
    before_rows, now_rows = ({(run.dataset.sha256, *run.compared) for run in runs} for runs in (before, now))
    for at, name in enumerate((DATA_FIELD, *(field.path for field in FIELDS))):
        old, new = {row[at] for row in before_rows}, {row[at] for row in now_rows}
        if name not in allowed and len(known_values(old | new)) > 1:
            yield f"{name} ({', '.join(known_values(old))} → {', '.join(known_values(new))})"


def _metric(metric: Metric, now: Sequence[RunSummary], before: Sequence[RunSummary]) -> GateMetric:
    old, new = observed(before, metric), observed(now, metric)
    old_median, new_median = median(old), median(new)
    result = GateMetric(
        name=metric.name,
        unit=metric.unit,
        n_before=len(old),
        n_now=len(new),
        median_before=old_median,
        median_now=new_median,
    )
    as_ratio = metric.unit != "ratio"
    too_few = len(old) < RUNS_FOR_A_VERDICT or not new
    if too_few or old_median is None or new_median is None or (as_ratio and min(old[0], new[0]) <= 0):
        return result
    if as_ratio:
        change = log(new_median) - log(old_median)
        tolerated = max(_tolerance([log(value) for value in old], len(new)), log(1 + RATIO_FLOOR))
    else:
        change = new_median - old_median
        tolerated = max(_tolerance(old, len(new)), ACCURACY_FLOOR)
    gain = change * _DIRECTION[metric.name]
    outcome = "within" if abs(gain) <= tolerated else "better" if gain > 0 else "worse"
    if as_ratio:
        change, tolerated = (expm1(min(value, _MAX_EXPONENT)) for value in (change, tolerated))
    return result.model_copy(update={"change": change, "tolerated": tolerated, "outcome": outcome})


def _tolerance(old: Sequence[float], n_now: int) -> float:
    """Tolerated distance of the median of ``n_now`` runs from the baseline's: a one-sided prediction bound.

    Student's t quantile times the standard error of the difference of two medians (Hahn and Meeker 1991, Statistical
    Intervals).
    """
    n = len(old)
    quantile = float(stats.t.ppf(1 - GATE_ALPHA, n - 1))
    return quantile * float(np.std(old, ddof=1)) * _MEDIAN_ERROR * sqrt(1 / n + 1 / n_now)


def _lost(now: Sequence[RunSummary], before: Sequence[RunSummary]) -> str | None:
    lost, lost_before = (sum(run.status not in COMPLETED for run in runs) for runs in (now, before))
    if lost / len(now) - lost_before / len(before) <= MAX_FAILURE_RATE_GAP:
        return None
    return f"{lost} of {pluralize(len(now), 'run')} did not complete, against {lost_before} of {len(before)} before"


def _outcome(metrics: Sequence[GateMetric], lost: str | None) -> tuple[GateOutcome, str]:
    outcomes = ("worse", "better", "within")
    worse, better, within = ([_clause(metric) for metric in metrics if metric.outcome == name] for name in outcomes)
    if lost or worse:
        text = f"regression: {', '.join([*([lost] if lost else []), *worse])}"
        return "regression", f"{text}; better all the same: {', '.join(better)}" if better else text
    if better:
        return "improvement", f"improvement: {', '.join(better)}"
    return "unchanged", f"unchanged: {', '.join(within[:1]) or 'nothing was measured on both sides'}"


def _clause(gated: GateMetric) -> str:
    metric = METRIC_BY_NAME[gated.name]
    if gated.change is None or gated.tolerated is None or gated.median_now is None or gated.median_before is None:
        return f"{metric.label} not measured"
    unit, change_unit = ("%", "points") if gated.unit == "ratio" else (gated.unit, "%")
    return (
        f"{metric.label} {metric.shown(gated.median_before)} → {metric.shown(gated.median_now)} {unit} "
        f"({100 * gated.change:+.2f} {change_unit}, tolerated {100 * gated.tolerated:.2f}; "
        f"{gated.n_now} against {pluralize(gated.n_before, 'run')})"
    )


def _triage(sides: Sequence[GateSide]) -> list[str]:
    """Where to look first, for each recipe and protocol that two frameworks or more ran."""
    groups: dict[tuple[str, str], list[GateSide]] = defaultdict(list)
    for side in sides:
        if side.outcome != "incomparable":
            groups[side.recipe, side.protocol].append(side)
    texts: list[str] = []
    for (recipe, protocol), group in groups.items():
        slower = [
            side.framework
            for side in group
            if any(metric.name == HEADLINE.name and metric.outcome == "worse" for metric in side.metrics)
        ]
        if len(group) < 2 or not slower:
            continue
        if len(slower) == len(group):
            text = f"{'both' if len(group) == 2 else 'all'} frameworks are slower: look at what they share, "
            text += "the node or the driver"
        else:
            text = f"only {' and '.join(slower)} is slower: look at its image or the framework itself"
        texts.append(f"{recipe}, {protocol}: {text}")
    return texts
