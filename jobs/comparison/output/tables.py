"""The comparison's tables and lists as plain text, for Markdown, the page and the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.fleet import NODES_FOR_OUTLIERS, node_name
from jobs.comparison.analysis.parity import OUTCOME, QUANTITY
from jobs.comparison.analysis.regression import tolerated_text
from jobs.comparison.analysis.rounding import severity
from jobs.comparison.fields import show_value
from jobs.comparison.input.metrics import HEADLINE, METRIC_BY_NAME, METRICS, Metric
from jobs.comparison.text import ABSENT, join_limited, number, pluralize, ratio_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison import schema
    from jobs.comparison.schema_base import MetricName
    from jobs.comparison.schema_gate import Gate, GateMetric
    from jobs.comparison.schema_parity import ParityPair, ParityQuantity

MAX_VALUES_IN_CELL: Final = 10
"""Maximum nodes or values named in one sentence or cell."""

_OUTLIER: Final = {
    "slow": "slow in both passes",
    "to_confirm": "slow, to be confirmed",
    "no_speed": "no run that counts",
    None: "",
}
_WHY_ALLOWED: Final = {
    "framework": "each framework's own",
    "allowed": "allowed with --allow",
    "environment": "environment",
    "seeds": "seeds do not change the speed",
}
_EN_DASH: Final = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """``left_out`` counts the rows that come after ``rows`` and are not built."""

    headings: list[str]
    rows: list[list[str]]
    left_out: int = 0


def frameworks(section: schema.Section) -> list[str]:
    return [side.framework for side in section.sides]


def ratio_heading(section: schema.Section) -> list[str]:
    """``torch / tensorflow``, in a list that is empty if there is only one side."""
    return [" / ".join(frameworks(section)[::-1])] if len(section.sides) == 2 else []


def metric_table(section: schema.Section) -> Table:
    """The runs of each side by status, then a row for each metric that some side has.

    With two sides the last column has their ratio or difference, where they are compared. The headline metric always
    has its row; the others without a value are named by :func:`unmeasured_labels`.
    """
    ratio = ratio_heading(section)
    absent = unmeasured_labels(section)
    sides = [f"{side.framework} {', '.join(side.framework_versions)}".rstrip() for side in section.sides]
    runs = [", ".join(f"{count} {status}" for status, count in side.runs_by_status.items()) for side in section.sides]
    shown = [metric for metric in METRICS if metric is HEADLINE or metric.label not in absent]
    rows = [[metric.heading, *_metric_cells(metric, section)] for metric in shown]
    return Table(["median (IQR)", *sides, *ratio], [["runs", *runs, *("" for _ in ratio)], *rows])


def unmeasured_labels(section: schema.Section) -> list[str]:
    """Labels of the metrics that no side has."""
    measured = {metric.name for side in section.sides for metric in side.metrics if metric.n}
    return [metric.label for metric in METRICS if metric.name not in measured]


def metric_of(side: schema.FrameworkResults, name: MetricName) -> schema.SideMetric:
    return next(metric for metric in side.metrics if metric.name == name)


def _metric_cells(metric: Metric, section: schema.Section) -> list[str]:
    sides = [metric_of(side, metric.name) for side in section.sides]
    cells = [_median_cell(metric, side) for side in sides]
    if len(sides) == 2:
        cells.append(_versus_cell(metric, section, *sides))
    return cells


def _median_cell(metric: Metric, side: schema.SideMetric) -> str:
    if side.median is None:
        reasons = "; ".join(unmeasured.reason for unmeasured in side.unmeasured)
        return f"{ABSENT} ({reasons or 'no run that counts'})"
    cell = f"{metric.shown(side.median)}, n={side.n}"
    return cell if side.n == 1 else f"{cell} ({range_cell(metric, side.q1, side.q3)})"


def range_cell(metric: Metric, low: float | None, high: float | None) -> str:
    return ABSENT if low is None or high is None else f"{metric.shown(low)}{_EN_DASH}{metric.shown(high)}"


def _versus_cell(metric: Metric, section: schema.Section, first: schema.SideMetric, second: schema.SideMetric) -> str:
    if not metric.as_difference:
        return next((ratio_cell(ratio) for ratio in section.ratios if ratio.metric == metric.name), ABSENT)
    if first.median is None or second.median is None:
        return ABSENT
    return f"{100 * (second.median - first.median):+.2f} points"


def ratio_cell(ratio: schema.MetricRatio) -> str:
    """The ratio, and its interval if there is one."""
    if ratio.low is None or ratio.high is None:
        return ratio_text(ratio.ratio)
    return f"{ratio_text(ratio.ratio)} ({ratio_text(ratio.low)}{_EN_DASH}{ratio_text(ratio.high)})"


def epoch_table(section: schema.Section) -> Table:
    """A row for each epoch: each side's median test accuracy, with the range of several runs."""
    sides = [{accuracy.epoch: accuracy for accuracy in side.epochs} for side in section.sides]
    epochs = sorted({epoch for side in sides for epoch in side})
    rows = [
        [str(epoch), *(accuracy_cell(side[epoch]) if epoch in side else ABSENT for side in sides)] for epoch in epochs
    ]
    return Table(["epoch", *frameworks(section)], rows)


def accuracy_cell(accuracy: schema.EpochAccuracy) -> str:
    cell = f"{100 * accuracy.median:.2f} %"
    if accuracy.n == 1:
        return cell
    return f"{cell}, n={accuracy.n} ({100 * accuracy.minimum:.2f}{_EN_DASH}{100 * accuracy.maximum:.2f})"


def node_table(section: schema.Section) -> Table:
    """A row for each outlier among a side's nodes."""
    rows = [
        [
            side.framework,
            node.node or ABSENT,
            ", ".join(node.gpu_uuids) or ABSENT,
            ABSENT if node.median is None else number(node.median),
            f"{node.n} of {node.runs}",
            _OUTLIER[node.outlier] if node.score is None else f"{_OUTLIER[node.outlier]}, score {node.score:+.1f}",
        ]
        for side in section.sides
        for node in side.nodes
        if node.outlier is not None
    ]
    return Table(["framework", "node", "GPU", "median, images/s", "runs", "apart"], rows)


def fleet_lines(section: schema.Section) -> list[str]:
    """A sentence for each side that ran on several nodes."""
    return [_fleet_line(side) for side in section.sides if side.nodes]


def _fleet_line(side: schema.FrameworkResults) -> str:
    outliers = [_node_text(node) for node in side.nodes if node.outlier is not None]
    line = f"{side.framework} ran on {pluralize(len(side.nodes), 'node')}"
    if len(side.nodes) < NODES_FOR_OUTLIERS:
        line += f"; {NODES_FOR_OUTLIERS} are needed to tell which stands apart"
    elif not outliers:
        line += ", none of which stands apart"
    if outliers:
        line += f"; apart from the others: {join_limited(outliers, MAX_VALUES_IN_CELL)}"
    if (second := side.second_pass) is not None:
        again, beside = (join_limited(names, MAX_VALUES_IN_CELL) for names in (second.again, second.beside))
        line += f"; before any is called slow, run {again} again beside {beside}, and merge all reports: "
        line += second.command
    return line


def _node_text(node: schema.Node) -> str:
    speed = "" if node.median is None else f", {number(node.median)} images/s"
    return f"{node_name(node)} ({_OUTLIER[node.outlier]}{speed})"


def run_table(section: schema.Section, limit: int) -> Table:
    """The first ``limit`` runs: framework, seed, run, status with its reason, then every metric."""
    headings = ["framework", "seed", "run", "status", *(metric.heading for metric in METRICS)]
    return Table(headings, [_run_cells(row) for row in section.runs[:limit]], max(0, len(section.runs) - limit))


def _run_cells(row: schema.RunRow) -> list[str]:
    name = row.run_id if row.attempt == 1 else f"{row.run_id}, attempt {row.attempt}"
    status = row.status if row.status_reason is None else f"{row.status}: {row.status_reason}"
    values = [(metric.name, row.metrics[metric.name]) for metric in METRICS]
    return [row.framework, str(row.seed), name, status, *(value_cell(name, value) for name, value in values)]


def value_cell(name: MetricName, value: float | None) -> str:
    """One run's value of a metric."""
    return ABSENT if value is None else METRIC_BY_NAME[name].shown(value)


def difference_table(section: schema.Section) -> Table:
    """A row for each field that differs: each side's values, and why the difference is allowed."""
    sides = frameworks(section)
    rows = [
        [
            difference.field,
            *(join_limited(difference.values.get(side, []), MAX_VALUES_IN_CELL) or ABSENT for side in sides),
            _WHY_ALLOWED[difference.why],
        ]
        for difference in section.differences
    ]
    return Table(["field", *sides, "why allowed"], rows)


def equal_table(section: schema.Section) -> Table:
    """A row for each field that must be equal and has a value."""
    rows = [[field, show_value(value)] for field, value in section.held_equal.items() if value is not None]
    return Table(["field", "value"], rows)


def unmeasured_table(section: schema.Section) -> Table:
    """A row for each reason why runs of a side lack a metric."""
    runs = Counter(
        (METRIC_BY_NAME[name].label, row.framework, reason)
        for row in section.runs
        for name, reason in row.missing.items()
    )
    rows = [
        [label, framework, pluralize(count, "run"), reason]
        for (label, framework, reason), count in sorted(runs.items())
    ]
    return Table(["measurement", "framework", "runs", "reason"], rows)


def gate_table(gate: Gate, names: Mapping[FrameworkName, str]) -> Table:
    """A row for each metric of each side: before, now, the change and the tolerance; ``names`` are the frameworks'."""
    rows = [
        [
            f"{side.title}, {names[side.framework]}: {METRIC_BY_NAME[metric.name].heading}",
            *_gate_cells(metric),
            metric.outcome.replace("_", " "),
        ]
        for side in gate.sides
        for metric in side.metrics
    ]
    return Table(["metric", "before", "now", "change", "tolerated", "seen in 9 of 10 if worse by", "outcome"], rows)


def _gate_cells(metric: GateMetric) -> list[str]:
    shown = METRIC_BY_NAME[metric.name].shown
    medians = [
        ABSENT if value is None else f"{shown(value)}, n={count}"
        for value, count in ((metric.median_before, metric.n_before), (metric.median_now, metric.n_now))
    ]
    unit = "points" if metric.unit == "ratio" else "%"
    change = ABSENT if metric.change is None else f"{100 * metric.change:+.2f} {unit}"
    tolerated = ABSENT if metric.tolerated is None else f"{tolerated_text(metric)} {unit}"
    visible = ABSENT if metric.visible is None else f"{100 * metric.visible:.1f} {unit}"
    return [*medians, change, tolerated, visible]


def parity_table(pairs: Sequence[ParityPair], limit: int) -> Table:
    """The first ``limit`` pairs of traces: each quantity's largest relative difference, and the outcome."""
    headings = ["recipe", "precision", "seed", "steps", *QUANTITY.values(), "tolerance", "rounding", "traces"]
    return Table(headings, [_parity_cells(pair) for pair in pairs[:limit]], len(pairs[limit:]))


def _parity_cells(pair: ParityPair) -> list[str]:
    quantities = {quantity.name: quantity for quantity in pair.quantities}
    outcome = OUTCOME[pair.outcome]
    if (step := pair.first_step_past_tolerance) is not None:
        outcome += " before step 1" if step == 0 else f" from step {step} on"
    return [
        pair.recipe,
        pair.precision,
        str(pair.seed),
        str(pair.steps),
        *(_quantity_cell(quantities[name]) for name in QUANTITY),
        ABSENT if pair.tolerance_ratio is None else f"{pair.tolerance_ratio:.0e}",
        _rounding_cell(pair),
        outcome,
    ]


def _rounding_cell(pair: ParityPair) -> str:
    """The rounding error that is largest relative to its bound, of either framework."""
    if not pair.rounding:
        return ABSENT
    check = max(pair.rounding, key=severity)
    quantity = check.quantity if check.weight is None else f"{check.quantity} of {check.weight}"
    return f"at most {100 * severity(check):.0f} % of its bound ({check.framework}, {quantity})"


def _quantity_cell(quantity: ParityQuantity) -> str:
    if quantity.largest_relative_difference is None:
        return f"{ABSENT} ({quantity.reason})"
    where = quantity.where or (f"step {quantity.at_step}" if quantity.at_step else "")
    return f"{quantity.largest_relative_difference:.1e}" + (f" ({where})" if where else "")
