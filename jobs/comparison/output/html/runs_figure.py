"""Every run as a mark, with each side's median and quartiles: one panel for each metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import METRICS
from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock, framework_legend, subsample
from jobs.comparison.output.tables import Table, metric_of, range_cell
from jobs.comparison.text import ABSENT, pluralize

if TYPE_CHECKING:
    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.schema import Section, SideMetric

MAX_MARKS: Final = 200
"""Maximum marks of one side in one panel; more would overlap."""

_MAX_LARGE_MARKS: Final = 30
_GOLDEN_RATIO: Final = 0.618033988749895
"""Multiples of it, modulo 1, spread the marks of a row evenly over its height."""

_TITLE, _LANE, _GAP = 22, 46, 22
Sides = dict["FrameworkName", "SideMetric"]


def runs_figure(section: Section) -> FigureBlock:
    """The distribution of each metric that was measured."""
    title = "Every run"
    panels: list[tuple[Metric, Sides]] = []
    for metric in METRICS:
        sides = {side.framework: metric_of(side, metric.name) for side in section.sides}
        if any(side.n for side in sides.values()):
            panels.append((metric, sides))
    if not panels:
        return FigureBlock(title=title, note="No run that counts has a measurement.")
    panel_height = _TITLE + _LANE * len(section.sides) + svg.AXIS_HEIGHT + _GAP
    most_runs = max(side.n for _, sides in panels for side in sides.values())
    return FigureBlock(
        title=title,
        caption=(
            "One mark is one run. The band is the interquartile range of a framework's runs, "
            "the upright line is the median, whose value is at the right. The axes do not begin at zero."
        ),
        legend=framework_legend([side.framework for side in section.sides]),
        drawing=tuple(_panel(metric, sides, top=panel_height * index) for index, (metric, sides) in enumerate(panels)),
        description="; ".join(_sentence(metric, sides) for metric, sides in panels),
        height=panel_height * len(panels) - _GAP,
        note=f"{MAX_MARKS} of up to {most_runs:,} runs a side are drawn, evenly by rank; medians and quartiles are of "
        "all."
        if most_runs > MAX_MARKS
        else None,
        table=Table(
            ["metric", "framework", "runs", "median", "quartiles", "range"],
            [_row(metric, framework, side) for metric, sides in panels for framework, side in sides.items()],
        ),
    )


def _panel(metric: Metric, sides: Sides, *, top: float) -> Markup:
    values = [value for side in sides.values() for value in (side.minimum, side.maximum) if value is not None]
    factor = 100.0 if metric.unit == "ratio" else 1.0
    scale = svg.linear_scale([factor * value for value in values], margin=0.06)
    parts = svg.text(metric.heading, y=top + 12, class_="strong")
    for lane, (framework, side) in enumerate(sides.items()):
        parts += _lane(metric, framework, side, scale, factor=factor, top=top + _TITLE + _LANE * lane)
    return parts + svg.x_axis(scale, y=top + _TITLE + _LANE * len(sides))


def _lane(
    metric: Metric, framework: FrameworkName, side: SideMetric, scale: svg.Scale, *, factor: float, top: float
) -> Markup:
    middle = top + 30
    value = ABSENT if side.median is None else metric.shown(side.median)
    parts = svg.lane_heading(DISPLAY_NAMES[framework], value, y=top + 13)
    parts += svg.line("0%", "100%", middle, middle, "rule")
    if side.median is None or side.q1 is None or side.q3 is None:
        return parts
    drawn = [factor * side.observations[index].value for index in subsample(side.n, MAX_MARKS)]
    offsets = [12 * (((index + 1) * _GOLDEN_RATIO) % 1 - 0.5) if len(drawn) > 1 else 0 for index in range(len(drawn))]
    points = [(scale.x(value), middle + offset) for value, offset in zip(drawn, offsets, strict=True)]
    side_marks = svg.marks(framework, points, small=len(points) > _MAX_LARGE_MARKS)
    if side.n > 1:
        quartiles = (factor * side.q1, factor * side.q3)
        side_marks = svg.bar(scale, *quartiles, y=middle - 11, height=22, class_="faint") + side_marks
    median = scale.x(factor * side.median)
    parts += svg.element("g", side_marks, class_=framework)
    return parts + svg.line(median, median, middle - 13, middle + 13, "thick")


def _sentence(metric: Metric, sides: Sides) -> str:
    medians = (
        f"{DISPLAY_NAMES[framework]} {metric.shown(side.median)} in {pluralize(side.n, 'run')}"
        for framework, side in sides.items()
        if side.median is not None
    )
    return f"{metric.heading}, median: {', '.join(medians)}"


def _row(metric: Metric, framework: FrameworkName, side: SideMetric) -> list[str]:
    return [
        metric.heading,
        DISPLAY_NAMES[framework],
        f"{side.n:,}",
        ABSENT if side.median is None else metric.shown(side.median),
        range_cell(metric, side.q1, side.q3),
        range_cell(metric, side.minimum, side.maximum),
    ]
