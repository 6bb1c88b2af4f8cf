"""SVG elements of the figures, responsive to the page's width.

Horizontal positions are percentages of the drawing's width. Heights, vertical positions and text sizes are CSS pixels.
Colours come from the style sheet: a class sets ``color``, and every shape is drawn in ``currentColor``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AXIS_HEIGHT: Final = 24
"""Height of :func:`x_axis` below its line, in pixels."""

AXIS_TITLE_HEIGHT: Final = 20
"""Additional height for its title."""

GUTTER: Final = 48
"""Pixels at the left of a figure with ``gutter``, for the labels of :func:`grid`; also in the style sheet."""

PANEL_TITLE_HEIGHT: Final = 26

_EDGE: Final = 0.06
"""A tick label within this fraction of an edge is aligned to its tick instead of centred on it."""


_POINT: Final = 1e-6
"""Values whose span is at most this share of them are one point to a scale, so that labels stay short."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values to positions; ``ticks`` are the values that an axis names."""

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def fraction(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        if self.logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def x(self, value: float) -> str:
        """Percent of the width."""
        return f"{100 * self.fraction(value):.2f}%"

    def y(self, value: float, height: float) -> float:
        """Pixels from the top of an area that is ``height`` pixels high."""
        return height * (1 - self.fraction(value))

    def labelled_ticks(self) -> list[tuple[float, str]]:
        """Each tick with its label; all have the same number of decimals unless they are very large or small."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        if self.logarithmic or step < 1e-4 or max(map(abs, self.ticks)) >= 1e9:
            labels = ([f"{tick:.{digits}g}" for tick in self.ticks] for digits in range(4, 18))
            return list(zip(self.ticks, next(row for row in labels if len({*row}) == len(row)), strict=True))
        decimals = len(f"{step:.6f}".rstrip("0").partition(".")[2])
        return [(tick, f"{tick:,.{decimals}f}") for tick in self.ticks]


def linear_scale(values: Iterable[float], *, margin: float = 0.0, max_steps: int = 5) -> Scale:
    """A linear scale over ``values`` with ``margin`` times their span free at both ends; ticks at round numbers."""
    values = list(values)
    low, high = min(values), max(values)
    is_point = high - low <= _POINT * max(abs(low), abs(high))
    room = (0.05 * abs(high) or 1.0) if is_point else margin * (high - low)
    low, high = low - room, high + room
    smallest_step = (high - low) / max_steps
    power = 10.0 ** floor(log10(smallest_step))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= smallest_step or factor == 10)
    ticks = [index * step for index in range(ceil(low / step), floor(high / step) + 1)]
    return Scale(low=low, high=high, ticks=ticks)


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element; text is escaped. ``class_`` sets ``class``, ``text_anchor`` sets ``text-anchor``, and so on."""
    # Markup.format would take several times as long, a second for a page of thousands of marks.
    start = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(f"{value:.6g}" if isinstance(value, float) else value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(escape(child if isinstance(child, Markup) else escape_control_chars(child)) for child in children)
    return Markup(f"<{tag}{start}>{content}</{tag}>")  # noqa: S704 - its parts are escaped


def text(
    content: str, *, y: float, x: str | float = "0%", anchor: str | None = None, class_: str | None = None
) -> Markup:
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: str, x2: str, y1: float, y2: float, class_: str | None = None) -> Markup:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=class_)


def bar(scale: Scale, low: float, high: float, *, y: float, height: float, class_: str | None = None) -> Markup:
    """A rectangle from ``low`` to ``high``."""
    width = f"{100 * (scale.fraction(high) - scale.fraction(low)):.2f}%"
    return element("rect", x=scale.x(low), y=y, width=width, height=height, class_=class_)


def marks(framework: str, points: Iterable[tuple[str, float]], *, small: bool = False) -> Markup:
    """The framework's mark at each (x, y); the page defines the marks once."""
    target = f"#{'small-' if small else ''}mark-{framework}"
    return Markup().join(element("use", href=target, x=x, y=y) for x, y in points)


def polyline(points: Iterable[tuple[str, float]], *, height: float) -> Markup:
    """A line through points of (percent of the width, y), cut off outside an area that is ``height`` pixels high.

    A ``polyline`` takes no percentages, so it is drawn 100 units wide and stretched; its stroke is not.
    """
    path = " ".join(f"{x.removesuffix('%')},{y:.1f}" for x, y in points)
    return element(
        "svg",
        element("polyline", points=path, vector_effect="non-scaling-stroke"),
        width="100%",
        height=height,
        viewBox=f"0 0 100 {height}",
        preserveAspectRatio="none",
    )


def lane_heading(name: str, value: str, *, y: float) -> Markup:
    """A row's name at the left and its value at the right."""
    return text(name, y=y, class_="halo") + text(value, x="100%", y=y, anchor="end", class_="halo strong")


def panel(title: str, *children: str, y: float) -> Markup:
    """``title`` and below it ``children``, whose vertical positions begin ``PANEL_TITLE_HEIGHT`` below ``y``."""
    heading = text(title, x=-GUTTER, y=y + 12, class_="strong")
    return heading + element("g", *children, transform=f"translate(0 {y + PANEL_TITLE_HEIGHT})")


def grid(scale: Scale, *, height: float) -> Markup:
    """A horizontal line for each tick, with its label left of the area."""
    parts = Markup()
    for tick, label in scale.labelled_ticks():
        y = scale.y(tick, height)
        parts += line("0%", "100%", y, y, class_="rule") + text(label, x=-8, y=y + 4, anchor="end")
    return element("g", parts, class_="quiet")


def x_axis(scale: Scale, *, y: float, title: str | None = None) -> Markup:
    """A line at ``y`` with ticks and labels under it, and below them the title."""
    parts = line("0%", "100%", y, y)
    for tick, label in scale.labelled_ticks():
        x, fraction = scale.x(tick), scale.fraction(tick)
        anchor = "start" if fraction < _EDGE else "end" if fraction > 1 - _EDGE else "middle"
        parts += line(x, x, y, y + 4) + text(label, x=x, y=y + 17, anchor=anchor)
    if title is not None:
        parts += text(title, x="50%", y=y + 17 + AXIS_TITLE_HEIGHT, anchor="middle")
    return element("g", parts, class_="quiet")
