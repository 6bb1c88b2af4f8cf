"""The tables and lists about several ranks as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.output.tables import MAX_VALUES_IN_CELL, Table
from jobs.comparison.text import ABSENT, join_limited, number, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.comparison import schema
    from jobs.comparison.schema_scaling import RankMeasure, ReductionCost, ScalingSeries

MAX_RUNS_LISTED: Final = 50
COST_TEXT: Final = (
    "With --reduction exact the weights do not depend on the number of ranks. The table compares its median speed with "
    "that of other ways to train the same steps on the same number of ranks."
)


def scaling_table(series: ScalingSeries) -> Table:
    """A row for each number of ranks."""
    headings = ["ranks", "runs", "images/s", "one rank, images/s", "efficiency", "communication", "waiting"]
    rows = [
        [
            str(point.ranks),
            str(point.runs),
            _cell(point.images_per_s, number),
            _cell(point.one_rank_images_per_s, number),
            _cell(point.efficiency_ratio, _percent),
            _cell(point.communication_ratio, _percent),
            _cell(point.wait_ratio, _percent),
        ]
        for point in series.points
    ]
    return Table(headings, rows)


def cost_table(costs: Sequence[ReductionCost]) -> Table:
    """A row for each way to train that has runs beside those of ``exact``."""
    headings = ["training", "ranks", "exact, images/s", "against", "images/s", "exact takes"]
    rows = [
        [
            cost.title,
            str(cost.ranks),
            f"{number(cost.exact_images_per_s)}, n={cost.exact_runs}",
            cost.other or "whole batches",
            f"{number(cost.other_images_per_s)}, n={cost.other_runs}",
            f"{_times(cost)} as long",
        ]
        for cost in costs
    ]
    return Table(headings, rows)


def cost_notes(costs: Sequence[ReductionCost]) -> list[str]:
    """A line for each row whose two ways differ in more than the reduction."""
    return [
        f"{cost.title}, {pluralize(cost.ranks, 'rank')}, {cost.other or 'whole batches'}: the runs also differ in "
        f"{join_limited(cost.differences, MAX_VALUES_IN_CELL)}"
        for cost in costs
        if cost.differences
    ]


def _times(cost: ReductionCost) -> str:
    if cost.low is None or cost.high is None:
        return f"{_ratio(cost.ratio)} times"
    return f"{_ratio(cost.ratio)} ({_ratio(cost.low)} to {_ratio(cost.high)}) times"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.1 <= ratio < 100 else f"{ratio:.3g}"


def scaling_note(series: ScalingSeries) -> str:
    """What a series' numbers of ranks differ in beside their number; empty for nothing."""
    if not series.differences:
        return ""
    return f"the runs also differ in {join_limited(series.differences, MAX_VALUES_IN_CELL)}"


def rank_lines(section: schema.Section) -> list[str]:
    """A sentence for each side of several ranks, and one for each run whose ranks left only log lines."""
    lines = [f"{side.framework}: {side.text}" for side in section.rank_speeds]
    if section.ranks == 1:
        return lines
    died = [run for run in section.runs if run.ranks_seen]
    lines += [f"{run.framework}: {run.run_id} {run.status}: {run.status_reason}" for run in died[:MAX_RUNS_LISTED]]
    rest = len(died) - MAX_RUNS_LISTED
    return lines if rest <= 0 else [*lines, f"and {pluralize(rest, 'more run')} without a report"]


def _cell(measure: RankMeasure, shown: Callable[[float], str]) -> str:
    if measure.value is None:
        reasons = "; ".join(unmeasured.reason for unmeasured in measure.unmeasured)
        return f"{ABSENT} ({reasons or 'no run that counts'})"
    cell = shown(measure.value)
    if measure.low is not None and measure.high is not None:
        cell += f" ({shown(measure.low)} to {shown(measure.high)})"
    missing = sum(unmeasured.runs for unmeasured in measure.unmeasured)
    return f"{cell}, n={measure.n}" if missing else cell


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %" if ratio < 1e6 else f"{100 * ratio:.1e} %"
