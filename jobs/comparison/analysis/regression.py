"""The regression gate: compares runs with a baseline of earlier ones, by framework."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.attribution import UPGRADE_FIELDS, attribute, changes, known_values
from jobs.comparison.analysis.comparability import DATA_FIELD
from jobs.comparison.analysis.gate_metrics import DIRECTION, GATE_ALPHA, candidates, judge
from jobs.comparison.analysis.gate_shift import counts
from jobs.comparison.analysis.sessions import find_sessions
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.fields import FIELDS
from jobs.comparison.input.metrics import COMPLETED, HEADLINE, METRIC_BY_NAME
from jobs.comparison.schema_gate import Gate, GateSide
from jobs.comparison.text import join_limited, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal

    from jobs.choices import FrameworkName
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.rank_setting import RankSetting
    from jobs.comparison.schema_gate import GateMetric, GateOutcome

    Key = tuple[str, Literal["matched", "published"], RankSetting, FrameworkName]

MAX_CAUSES: Final = 3
"""Causes named of suspect runs."""


def gate(now: Sequence[RunSummary], before: Sequence[RunSummary], *, allow: Iterable[str] = ()) -> Gate:
    """Compare ``now`` with the baseline ``before``, for each recipe, protocol, setting of ranks and framework.

    ``allow`` names compared fields that may differ between the two; the data may never differ.
    """
    allowed = (frozenset(allow) | UPGRADE_FIELDS) - {DATA_FIELD}
    old, new = _by_side(before), _by_side(now)
    sessions = find_sessions((*now, *before))
    keys = sorted({*old, *new})
    refusals = {key: _refusal(new.get(key, []), old.get(key, []), allowed) for key in keys}
    found = {key: [] if refusals[key] else candidates(new[key], old[key], sessions) for key in keys}
    judged = iter(judge([candidate for key in keys for candidate in found[key]]))
    sides = [
        _side(key, new.get(key, []), old.get(key, []), refusals[key], list(islice(judged, len(found[key]))))
        for key in keys
    ]
    order: tuple[GateOutcome, ...] = ("regression", "incomparable", "improvement")
    outcome: GateOutcome = next((worst for worst in order if worst in {side.outcome for side in sides}), "unchanged")
    return Gate(outcome=outcome, false_alarms_ratio=GATE_ALPHA, sides=sides, triage=_triage(sides))


def _by_side(runs: Iterable[RunSummary]) -> dict[Key, list[RunSummary]]:
    sides: dict[Key, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.has_training:
            sides[run.recipe, run.protocol, run.rank_setting, run.framework].append(run)
    return sides


def _side(
    key: Key, now: Sequence[RunSummary], before: Sequence[RunSummary], refusal: str | None, metrics: list[GateMetric]
) -> GateSide:
    changed = changes(before, now)
    outcome, text = ("incomparable", f"incomparable: {refusal}") if refusal else _outcome(metrics, _lost(now, before))
    suspect_before, suspect_now = (sum(_is_suspect(run) for run in runs) for runs in (before, now))
    if suspect_before or suspect_now:
        text += f"; left out as suspect: {suspect_before} of the runs before, {suspect_now} now"
    return GateSide(
        recipe=key[0],
        protocol=key[1],
        ranks=key[2].ranks,
        reduction=key[2].reduction,
        scaling=key[2].scaling,
        framework=key[3],
        outcome=outcome,
        text=text if refusal else f"{text}; {attribute(changed)}",
        runs_before=len(before),
        runs_now=len(now),
        suspect_before=suspect_before,
        suspect_now=suspect_now,
        metrics=metrics,
        changes=changed,
    )


def _is_suspect(run: RunSummary) -> bool:
    return HEADLINE.counts(run.status) and not counts(run, HEADLINE)


def _refusal(now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> str | None:
    """Why ``now`` cannot be compared with ``before``, ``None`` where it can."""
    if not before:
        return "the baseline has no such runs; add them to it"
    if not now:
        return "the baseline has such runs, and there are none now; run them, or leave them out of the baseline"
    measured = sum(counts(run, HEADLINE) for run in before)
    if measured < RUNS_FOR_A_VERDICT:
        which = " that counts" if measured == 1 else " that count"
        which = which if any(map(_is_suspect, before)) else ""
        return (
            f"the baseline has {pluralize(measured, 'completed run')}{which}, its variance needs {RUNS_FOR_A_VERDICT}"
        )
    causes = sorted({cause for run in now if _is_suspect(run) for cause in run.suspect_of})
    if causes and not any(counts(run, HEADLINE) for run in now) and _lost(now, before) is None:
        return f"every completed run now is suspect ({join_limited(causes, MAX_CAUSES)}); run them again"
    differing = list(_differing(now, before, allowed))
    return f"these differ: {', '.join(differing)}" if differing else None


def _differing(now: Sequence[RunSummary], before: Sequence[RunSummary], allowed: frozenset[str]) -> Iterator[str]:
    """``field (earlier values → present values)`` for each field that differs and is not allowed to."""
    before_rows, now_rows = ({(run.dataset.sha256, *run.compared) for run in runs} for runs in (before, now))
    for at, name in enumerate((DATA_FIELD, *(field.path for field in FIELDS))):
        old, new = {row[at] for row in before_rows}, {row[at] for row in now_rows}
        if name not in allowed and len(known_values(old | new)) > 1:
            yield f"{name} ({', '.join(known_values(old))} → {', '.join(known_values(new))})"


def _lost(now: Sequence[RunSummary], before: Sequence[RunSummary]) -> str | None:
    lost, lost_before = (sum(run.status not in COMPLETED for run in runs) for runs in (now, before))
    if lost / len(now) - lost_before / len(before) <= MAX_FAILURE_RATE_GAP:
        return None
    return f"{lost} of {pluralize(len(now), 'run')} did not complete, against {lost_before} of {len(before)} before"


def _outcome(metrics: Sequence[GateMetric], lost: str | None) -> tuple[GateOutcome, str]:
    by_outcome: dict[str, list[GateMetric]] = defaultdict(list)
    for metric in metrics:
        by_outcome[metric.outcome].append(metric)
    worse, better = ([_clause(metric) for metric in by_outcome[name]] for name in ("worse", "better"))
    if lost or worse:
        text = f"regression: {', '.join([*([lost] if lost else []), *worse])}"
        return "regression", f"{text}; better all the same: {', '.join(better)}" if better else text
    if by_outcome["unseen"]:
        return "incomparable", _blind(by_outcome["unseen"][0])
    if better:
        return "improvement", f"improvement: {', '.join(better)}"
    if not by_outcome["within"]:
        return "unchanged", "unchanged: nothing was measured on both sides"
    first = by_outcome["within"][0]
    seen = "" if first.visible is None else f"; would have seen {_signed(first, first.visible)} with 9 of 10 certainty"
    return "unchanged", f"unchanged: {_clause(first)}{seen}"


def _blind(gated: GateMetric) -> str:
    least = "" if gated.tolerated is None else f"{100 * gated.tolerated:.0f} {_change_unit(gated)}"
    advice = (
        f"add runs to the baseline, best of {RUNS_FOR_A_VERDICT} days or more, or repeat its runs beside the new ones"
    )
    return f"incomparable: this baseline cannot see less than {least} in {_clause(gated)}; {advice}"


def _clause(gated: GateMetric) -> str:
    metric = METRIC_BY_NAME[gated.name]
    if gated.change is None or gated.tolerated is None or gated.median_now is None or gated.median_before is None:
        return f"{metric.label} not measured"
    unit = "%" if gated.unit == "ratio" else gated.unit
    return (
        f"{metric.label} {metric.shown(gated.median_before)} → {metric.shown(gated.median_now)} {unit} "
        f"({100 * gated.change:+.2f} {_change_unit(gated)}, tolerated {tolerated_text(gated)}; "
        f"{gated.n_now} against {pluralize(gated.n_before, 'run')}{_sessions_clause(gated)})"
    )


def tolerated_text(gated: GateMetric) -> str:
    """The tolerance with the sign of the change."""
    assert gated.tolerated is not None
    assert gated.change is not None
    sign = "-" if gated.change < 0 or (gated.change == 0 and DIRECTION[gated.name] > 0) else "+"
    return f"{sign}{100 * gated.tolerated:.2f}"


def _signed(gated: GateMetric, size: float) -> str:
    """A change for the worse."""
    return f"{'-' if DIRECTION[gated.name] > 0 else '+'}{100 * size:.1f} {_change_unit(gated)}"


def _change_unit(gated: GateMetric) -> str:
    return "points" if gated.unit == "ratio" else "%"


def _sessions_clause(gated: GateMetric) -> str:
    now, before = gated.sessions_now, gated.sessions_before
    if not METRIC_BY_NAME[gated.name].as_ratio or max(now, before) <= 1:
        return ""
    return f", {now} against {pluralize(before, 'session')}"


def _triage(sides: Sequence[GateSide]) -> list[str]:
    """Where to look first, for what two frameworks or more ran."""
    groups: dict[str, list[GateSide]] = defaultdict(list)
    for side in sides:
        if side.outcome != "incomparable":
            groups[side.title].append(side)
    texts: list[str] = []
    for title, group in groups.items():
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
        texts.append(f"{title}: {text}")
    return texts
