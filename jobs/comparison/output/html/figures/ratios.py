"""The ratio of the two medians with its interval, against what counts as equivalent."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Final

from matplotlib.ticker import FixedLocator, NullLocator

from jobs.comparison.analysis.statistics import SMALLEST_EFFECT
from jobs.comparison.input.metrics import METRICS
from jobs.comparison.output.html.figures.figure import absent, drawn, lane_value, lanes, place
from jobs.comparison.output.html.theme import BAND, INK, LOOK, QUIET
from jobs.comparison.text import ABSENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.comparison.output.html.figures.figure import FigureBlock, Width
    from jobs.comparison.schema import MetricRatio, Section

_TICKS: Final = (0.001, 0.01, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 100, 1000)
_LANE: Final = 36
_LABEL: Final = {metric.name: metric.label for metric in METRICS}


def ratios_plate(section: Section, name: str) -> FigureBlock:
    """A row for each metric whose medians could be divided."""
    ratios = section.ratios
    if not ratios:
        reason = "There is one side only." if len(section.sides) == 1 else "The medians cannot be divided."
        return absent(name=name, title="One against the other", reason=reason)
    above, below = LOOK[ratios[0].numerator].label, LOOK[ratios[0].denominator].label

    def paint(figure: Figure, width: Width) -> None:
        left, right = (170.0, 168.0) if width == "wide" else (118.0, 52.0)
        axes = place(figure, left=left, right=right, top=6, height=_LANE * len(ratios))
        axes.axvspan(1 / SMALLEST_EFFECT, SMALLEST_EFFECT, color=BAND, linewidth=0, zorder=0)
        axes.axvline(1, color=QUIET, linewidth=1, zorder=1)
        for lane, ratio in enumerate(ratios):
            if ratio.low is not None and ratio.high is not None:
                axes.plot([ratio.low, ratio.high], [lane, lane], color=INK, linewidth=2.5, solid_capstyle="butt")
                for end in (ratio.low, ratio.high):
                    axes.plot([end, end], [lane - 0.13, lane + 0.13], color=INK, linewidth=2, solid_capstyle="butt")
            axes.plot([ratio.ratio], [lane], "o", color=INK, markersize=8, markeredgewidth=0)
            text = _interval(ratio) if width == "wide" else f"{ratio.ratio:.3f}"
            lane_value(axes, lane, text, right=right)
        lanes(axes, [_LABEL[ratio.metric] for ratio in ratios], left=left, size=12 if width == "wide" else 11)
        axes.set_xscale("log")
        low, high = _limits(ratios)
        axes.set_xlim(low, high)
        shown = [tick for tick in _TICKS if low <= tick <= high]
        axes.xaxis.set_major_locator(FixedLocator(_spaced(shown, low, high, 7 if width == "wide" else 4)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel(f"{above} ÷ {below}" + (", logarithmic" if width == "wide" else ""))

    height = float(6 + _LANE * len(ratios) + 46)
    return drawn(
        paint,
        name=name,
        title="One against the other",
        caption=(
            f"The median of {above} divided by that of {below}, with its bootstrap interval. At the line they are "
            f"equal; inside the band they differ by less than {100 * (SMALLEST_EFFECT - 1):.0f} %."
        ),
        description="; ".join(f"{_LABEL[ratio.metric]}: {_interval(ratio)}" for ratio in ratios),
        heights={"wide": height, "narrow": height},
        headings=["metric", f"{above} ÷ {below}", "interval from", "to"],
        rows=[
            [_LABEL[ratio.metric], f"{ratio.ratio:.3f}", *(_number(bound) for bound in (ratio.low, ratio.high))]
            for ratio in ratios
        ],
    )


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _interval(ratio: MetricRatio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.3f}"
    return f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _limits(ratios: list[MetricRatio]) -> tuple[float, float]:
    """Both sides of 1, at least a quarter either way, with a little room."""
    values = [value for ratio in ratios for value in (ratio.ratio, ratio.low, ratio.high) if value is not None]
    return min(0.78, 0.94 * min(values)), max(1.28, 1.06 * max(values))


def _spaced(ticks: list[float], low: float, high: float, most: int) -> list[float]:
    """Of ``ticks`` those that leave each other room, 1 before all others."""
    apart = log10(high / low) / most
    kept: list[float] = []
    for tick in sorted(ticks, key=lambda tick: abs(log10(tick))):
        if all(abs(log10(tick / other)) >= apart for other in kept):
            kept.append(tick)
    return sorted(kept)
