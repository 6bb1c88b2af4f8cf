"""The comparison's tables as plain text cells, for whichever renderer shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.fleet import NODES_FOR_OUTLIERS
from jobs.comparison.analysis.parity import OUTCOME, QUANTITY
from jobs.comparison.analysis.rounding import severity
from jobs.comparison.fields import show_value
from jobs.comparison.input.metrics import HEADLINE, METRICS, Metric
from jobs.comparison.text import ABSENT, counted, listed, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.comparison.schema import (
        EpochAccuracy,
        FrameworkResults,
        Node,
        ParityPair,
        ParityQuantity,
        RunRow,
        Section,
        SideMetric,
    )

ROWS_SHOWN: Final = 50
"""Rows of one table at most in what people read; comparison.json and runs.csv have all."""

VALUES_NAMED: Final = 10
"""Nodes or values named in one sentence or cell at most."""

_APART: Final = {"slow": "slow", "fast": "fast", "no_speed": "no run that counts", None: ""}


def side_heading(side: FrameworkResults) -> str:
    return f"{side.framework} {', '.join(side.framework_versions)}"


def ratio_heading(section: Section) -> str | None:
    """``torch / tensorflow``; ``None`` where there is one side only."""
    return f"{section.sides[1].framework} / {section.sides[0].framework}" if len(section.sides) == 2 else None


def runs_row(section: Section) -> list[str]:
    """How many runs each side has, and what became of them."""
    return [", ".join(f"{count} {status}" for status, count in side.runs_by_status.items()) for side in section.sides]


def metric_rows(section: Section) -> list[list[str]]:
    """A row a metric that some side has: its label, a cell a side, and the sides' ratio or difference if two.

    The headline has its row in any case; what no side has is :func:`unmeasured`.
    """
    return [
        [metric.heading, *_cells(metric, section)]
        for metric in METRICS
        if metric is HEADLINE or metric.label not in unmeasured(section)
    ]


def unmeasured(section: Section) -> list[str]:
    """Labels of the metrics that no side has."""
    measured = {found.name for side in section.sides for found in side.metrics if found.n}
    return [metric.label for metric in METRICS if metric.name not in measured]


def _cells(metric: Metric, section: Section) -> list[str]:
    sides = [next(found for found in side.metrics if found.name == metric.name) for side in section.sides]
    cells = [_median_cell(metric, side) for side in sides]
    return cells if len(sides) == 1 else [*cells, _versus_cell(metric, section, sides)]


def _median_cell(metric: Metric, side: SideMetric) -> str:
    if side.median is None or side.q1 is None or side.q3 is None:
        reasons = "; ".join(unmeasured.reason for unmeasured in side.unmeasured)
        return f"{ABSENT} ({reasons or 'no run that counts'})"
    if side.n == 1:
        return f"{metric.shown(side.median)}, n=1"
    spread = f"{metric.shown(side.q1)}–{metric.shown(side.q3)}"  # noqa: RUF001
    return f"{metric.shown(side.median)}, n={side.n} ({spread})"


def _versus_cell(metric: Metric, section: Section, sides: Sequence[SideMetric]) -> str:
    if metric.unit == "ratio":
        below, above = (side.median for side in sides)
        return ABSENT if below is None or above is None else f"{100 * (above - below):+.2f} points"
    found = next((ratio for ratio in section.ratios if ratio.metric == metric.name), None)
    if found is None:
        return ABSENT
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f}–{found.high:.3f})"  # noqa: RUF001
    return f"{found.ratio:.3f}{interval}"


def epoch_rows(section: Section) -> list[list[str]]:
    """A row an epoch: its number and each side's median test accuracy, with the range of several runs."""
    by_side = [{accuracy.epoch: accuracy for accuracy in side.epochs} for side in section.sides]
    epochs = sorted({epoch for side in by_side for epoch in side})[:ROWS_SHOWN]
    return [[str(epoch), *(_accuracy_cell(side.get(epoch)) for side in by_side)] for epoch in epochs]


def _accuracy_cell(accuracy: EpochAccuracy | None) -> str:
    if accuracy is None:
        return ABSENT
    median = f"{100 * accuracy.median:.2f} %"
    if accuracy.n == 1:
        return median
    return f"{median}, n={accuracy.n} ({100 * accuracy.minimum:.2f}–{100 * accuracy.maximum:.2f})"  # noqa: RUF001


def node_rows(section: Section) -> list[list[str]]:
    """A row a node that stands apart: framework, node, GPU, median speed, runs, how far from the others."""
    return [
        [
            side.framework,
            node.node or ABSENT,
            ", ".join(node.gpu_uuids) or ABSENT,
            ABSENT if node.median is None else number(node.median),
            f"{node.n} of {node.runs}",
            _APART[node.outlier] if node.score is None else f"{_APART[node.outlier]}, score {node.score:+.1f}",
        ]
        for side in section.sides
        for node in side.nodes
        if node.outlier is not None
    ]


def fleet_lines(section: Section) -> list[str]:
    """A sentence a side that ran on several nodes."""
    lines: list[str] = []
    for side in section.sides:
        if not side.nodes:
            continue
        apart = [node for node in side.nodes if node.outlier is not None]
        text = f"{side.framework} ran on {counted(len(side.nodes), 'node')}"
        if len(side.nodes) < NODES_FOR_OUTLIERS:
            text += f"; {NODES_FOR_OUTLIERS} are needed to tell which stands apart"
        elif not apart:
            text += ", none of which stands apart"
        if apart:
            text += f"; apart from the others: {listed([_node_text(node) for node in apart], VALUES_NAMED)}"
        lines.append(text)
    return lines


def _node_text(node: Node) -> str:
    where = " ".join(part for part in (node.node, ", ".join(node.gpu_uuids)) if part)
    speed = "" if node.median is None else f", {number(node.median)} images/s"
    return f"{where} ({_APART[node.outlier]}{speed})"


def shown_runs(section: Section) -> list[RunRow]:
    """The runs that a page for people lists; beyond :data:`ROWS_SHOWN` the files have the rest."""
    return section.runs[:ROWS_SHOWN]


def run_cells(row: RunRow) -> list[str]:
    """A run's cells: framework, seed, run, status with its reason, then every metric."""
    name = row.run_id if row.attempt == 1 else f"{row.run_id}, attempt {row.attempt}"
    status = row.status if row.status_reason is None else f"{row.status}: {row.status_reason}"
    values = [ABSENT if (value := row.metrics[metric.name]) is None else metric.shown(value) for metric in METRICS]
    return [row.framework, str(row.seed), name, status, *values]


def run_headings() -> list[str]:
    return ["framework", "seed", "run", "status", *(metric.heading for metric in METRICS)]


def difference_rows(section: Section) -> list[list[str]]:
    """A row a field that differs: its name, each side's values, and why it was let pass."""
    why = {
        "framework": "each framework's own",
        "allowed": "allowed with --allow",
        "environment": "environment",
    }
    return [
        [
            difference.field,
            *(listed(difference.values.get(side.framework, []), VALUES_NAMED) or ABSENT for side in section.sides),
            why[difference.why],
        ]
        for difference in section.differences
    ]


def parity_headings() -> list[str]:
    return ["recipe", "precision", "seed", "steps", *QUANTITY.values(), "tolerance", "rounding", "traces"]


def parity_row(pair: ParityPair) -> list[str]:
    """A pair's cells: its setting, each quantity's largest relative difference and where, and the outcome."""
    found = {quantity.name: quantity for quantity in pair.quantities}
    tolerance = ABSENT if pair.tolerance_ratio is None else f"{pair.tolerance_ratio:.0e}"
    cells = [_apart(found[name]) for name in QUANTITY]
    outcome = OUTCOME[pair.outcome]
    if pair.first_step_past_tolerance is not None:
        step = pair.first_step_past_tolerance
        outcome += " before step 1" if step == 0 else f" from step {step} on"
    rounding = _closest_to_bound(pair)
    return [pair.recipe, pair.precision, str(pair.seed), str(pair.steps), *cells, tolerance, rounding, outcome]


def _closest_to_bound(pair: ParityPair) -> str:
    """The error that takes most of its bound, of either framework."""
    if not pair.rounding:
        return ABSENT
    check = max(pair.rounding, key=severity)
    what = check.quantity if check.weight is None else f"{check.quantity} of {check.weight}"
    return f"at most {100 * severity(check):.0f} % of its bound ({check.framework}, {what})"


def _apart(quantity: ParityQuantity) -> str:
    if quantity.largest_relative_difference is None:
        return f"{ABSENT} ({quantity.reason})"
    where = quantity.where or (f"step {quantity.at_step}" if quantity.at_step else "")
    return f"{quantity.largest_relative_difference:.1e}" + (f" ({where})" if where else "")


def equal_rows(section: Section) -> list[list[str]]:
    """A row a field that had to be equal and is, with its value; fields that no run has are beside the point."""
    return [[field, show_value(value)] for field, value in section.held_equal.items() if value is not None]


def unmeasured_rows(section: Section) -> list[list[str]]:
    """A row a missing measurement: metric, framework, how many runs lack it, the reason."""
    reasons: dict[tuple[str, str, str], int] = {}
    for row in section.runs:
        for metric in METRICS:
            if metric.name in row.missing:
                key = (metric.label, row.framework, row.missing[metric.name])
                reasons[key] = reasons.get(key, 0) + 1
    return [
        [label, framework, counted(count, "run"), reason]
        for (label, framework, reason), count in sorted(reasons.items())
    ]
