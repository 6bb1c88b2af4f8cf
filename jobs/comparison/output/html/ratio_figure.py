"""The ratio of the two medians with its interval, and the band of equivalent ratios."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.statistics import SMALLEST_EFFECT
from jobs.comparison.input.metrics import METRIC_BY_NAME
from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock
from jobs.comparison.output.tables import Table, ratio_cell

if TYPE_CHECKING:
    from markupsafe import Markup

    from jobs.comparison.schema import MetricRatio, Section

_TICKS: Final = (0.001, 0.01, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 100, 1000)
_MAX_TICKS: Final = 7
_LANE: Final = 44


def ratio_figure(section: Section) -> FigureBlock:
    """One row for each metric whose medians have a ratio."""
    title = "Ratio of the frameworks"
    ratios = section.ratios
    if not ratios:
        reason = "There is one side only." if len(section.sides) == 1 else "The medians cannot be divided."
        return FigureBlock(title=title, note=reason)
    division = f"{DISPLAY_NAMES[ratios[0].numerator]} ÷ {DISPLAY_NAMES[ratios[0].denominator]}"
    scale = _scale(ratios)
    height = _LANE * len(ratios)
    rows = [[METRIC_BY_NAME[ratio.metric].label, ratio_cell(ratio)] for ratio in ratios]
    return FigureBlock(
        title=title,
        caption=(
            f"Medians, {division}, with the interval; the speed by blocks or nodes if the verdict is. At the line they "
            f"are equal; inside the band they differ by less than {100 * (SMALLEST_EFFECT - 1):.0f} %."
        ),
        drawing=(
            svg.bar(scale, 1 / SMALLEST_EFFECT, SMALLEST_EFFECT, y=0, height=height, class_="band"),
            svg.line(scale.x(1), scale.x(1), 0, height, "quiet"),
            *(_lane(ratio, scale, top=_LANE * index) for index, ratio in enumerate(ratios)),
            svg.x_axis(scale, y=height, title=f"{division}, logarithmic"),
        ),
        description="; ".join(map(": ".join, rows)),
        height=height + svg.AXIS_HEIGHT + svg.AXIS_TITLE_HEIGHT,
        table=Table(["metric", f"{division} (interval)"], rows),
    )


def _lane(ratio: MetricRatio, scale: svg.Scale, *, top: float) -> Markup:
    middle = top + 29
    parts = svg.lane_heading(METRIC_BY_NAME[ratio.metric].label, ratio_cell(ratio), y=top + 15)
    if ratio.low is not None and ratio.high is not None:
        low, high = scale.x(ratio.low), scale.x(ratio.high)
        parts += svg.line(low, high, middle, middle, "thick")
        parts += svg.line(low, low, middle - 5, middle + 5, "thick") + svg.line(
            high, high, middle - 5, middle + 5, "thick"
        )
    return parts + svg.element("circle", cx=scale.x(ratio.ratio), cy=middle, r=4.5)


def _scale(ratios: list[MetricRatio]) -> svg.Scale:
    """A logarithmic scale around 1 that covers at least 0.78 to 1.28, with a small margin."""
    values = [value for ratio in ratios for value in (ratio.ratio, ratio.low, ratio.high) if value is not None]
    low, high = min(0.78, 0.94 * min(values)), max(1.28, 1.06 * max(values))
    ticks: list[float] = []
    # Ticks nearest to 1 come first; a tick too close to an earlier one is dropped.
    for tick in sorted(_TICKS, key=lambda tick: abs(log10(tick))):
        far = all(abs(log10(tick / other)) >= log10(high / low) / _MAX_TICKS for other in ticks)
        if low <= tick <= high and far:
            ticks.append(tick)
    return svg.Scale(low=low, high=high, ticks=sorted(ticks), logarithmic=True)
