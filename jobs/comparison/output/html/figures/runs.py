"""Every run as a dot, with each side's median and quartiles: one panel a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import METRICS
from jobs.comparison.output.html.figures.figure import Thousands, absent, drawn, label, lane_value, place, thinned
from jobs.comparison.output.html.figures.figure import lanes as name_lanes
from jobs.comparison.output.html.theme import INK, LOOK, RULE
from jobs.comparison.text import ABSENT, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.output.html.figures.figure import FigureBlock, Width
    from jobs.comparison.schema import Section, SideMetric
    from jobs.report.schema import FrameworkName

MAX_DOTS: Final = 200
"""Dots of one side in one panel; more would hide each other."""

_GOLDEN: Final = 0.618033988749895
_LANE, _HEAD, _FOOT = 34, 34, 34
Lanes = dict["FrameworkName", "SideMetric"]


def runs_plate(section: Section, name: str) -> FigureBlock:
    """The distribution of each metric that was measured."""
    title = "Every run"
    panels: list[tuple[Metric, Lanes]] = []
    for metric in METRICS:
        lanes = {side.framework: found for side in section.sides for found in side.metrics if found.name == metric.name}
        if any(lane.n for lane in lanes.values()):
            panels.append((metric, lanes))
    if not panels:
        return absent(name=name, title=title, reason="No run that counts has a measurement.")
    panel = _HEAD + _LANE * len(section.sides) + _FOOT

    def paint(figure: Figure, width: Width) -> None:
        left, right = (96.0, 76.0) if width == "wide" else (84.0, 60.0)
        for index, (metric, lanes) in enumerate(panels):
            axes = place(figure, left=left, right=right, top=panel * index + _HEAD, height=_LANE * len(lanes))
            _paint_panel(axes, metric, lanes, left=left, right=right)

    most = max(lane.n for _, lanes in panels for lane in lanes.values())
    height = float(panel * len(panels))
    return drawn(
        paint,
        name=name,
        title=title,
        caption=(
            "One mark is one run. The band spans the middle half of a side's runs (its interquartile range), "
            "the upright line is the median, whose value stands at the right. The axes do not begin at zero."
        ),
        description="; ".join(_sentence(metric, lanes) for metric, lanes in panels),
        heights={"wide": height, "narrow": height},
        headings=["metric", "framework", "runs", "median", "quartiles", "range"],
        rows=[_row(metric, framework, lane) for metric, lanes in panels for framework, lane in lanes.items()],
        note=f"{MAX_DOTS} of up to {most:,} runs a side are drawn, evenly by rank; medians and quartiles are of all."
        if most > MAX_DOTS
        else None,
    )


def _paint_panel(axes: Axes, metric: Metric, lanes: Lanes, *, left: float, right: float) -> None:
    factor = 100.0 if metric.unit == "ratio" else 1.0
    label(axes, metric.heading, x=-left, above=10, color=INK, fontweight="bold", fontsize=12.5)
    for lane, (framework, found) in enumerate(lanes.items()):
        axes.axhline(lane, color=RULE, linewidth=1, zorder=0)
        if found.median is None or found.q1 is None or found.q3 is None:
            continue
        look = LOOK[framework]
        if found.n > 1:
            span = ((found.q3 - found.q1) * factor,)
            axes.barh([lane], span, left=[found.q1 * factor], height=0.62, color=look.color, alpha=0.22, linewidth=0)
        values = [found.observations[index].value * factor for index in thinned(found.n, MAX_DOTS)]
        offsets = [
            lane + 0.4 * (((index + 1) * _GOLDEN) % 1 - 0.5) if len(values) > 1 else lane
            for index in range(len(values))
        ]
        size = 5.5 if len(values) <= 30 else 3.5
        axes.plot(
            values,
            offsets,
            look.marker,
            color=look.color,
            markersize=size,
            markeredgewidth=0,
            alpha=0.85,
            clip_on=False,
        )
        median = found.median * factor
        axes.plot([median, median], [lane - 0.4, lane + 0.4], color=INK, linewidth=2, solid_capstyle="butt")
        lane_value(axes, lane, metric.shown(found.median), right=right)
    name_lanes(axes, [LOOK[framework].label for framework in lanes], left=left)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(Thousands())


def _sentence(metric: Metric, lanes: Lanes) -> str:
    sides = (
        f"{LOOK[framework].label} {metric.shown(lane.median)} in {counted(lane.n, 'run')}"
        for framework, lane in lanes.items()
        if lane.median is not None
    )
    return f"{metric.heading}, median: {', '.join(sides)}"


def _row(metric: Metric, framework: FrameworkName, lane: SideMetric) -> list[str]:
    if lane.median is None or lane.q1 is None or lane.q3 is None or lane.minimum is None or lane.maximum is None:
        return [metric.heading, LOOK[framework].label, "0", ABSENT, ABSENT, ABSENT]
    return [
        metric.heading,
        LOOK[framework].label,
        f"{lane.n:,}",
        metric.shown(lane.median),
        f"{metric.shown(lane.q1)} to {metric.shown(lane.q3)}",
        f"{metric.shown(lane.minimum)} to {metric.shown(lane.maximum)}",
    ]
