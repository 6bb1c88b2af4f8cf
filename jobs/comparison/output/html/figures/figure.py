"""What every figure is made of: two drawings for two widths of page, and the same figures as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from markupsafe import Markup
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from jobs.comparison.output.html.svg import draw
from jobs.comparison.output.html.theme import INK, LOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jobs.report.schema import FrameworkName

Width = Literal["wide", "narrow"]
WIDTHS: Final[dict[Width, float]] = {"wide": 880.0, "narrow": 350.0}
"""CSS pixels; the style sheet shows the one that fits, so that text keeps its size on a telephone."""


@dataclass(frozen=True, kw_only=True)
class FigureBlock:
    """A figure with its words and its table; with nothing to draw, ``note`` says why and ``drawings`` is empty."""

    name: str
    title: str
    caption: str
    note: str | None
    drawings: Markup
    headings: list[str]
    rows: list[list[str]]


def drawn(
    paint: Callable[[Figure, Width], None],
    *,
    name: str,
    title: str,
    caption: str,
    description: str,
    heights: dict[Width, float],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str | None = None,
) -> FigureBlock:
    """The plate that ``paint`` draws, once for each width of page."""
    drawings = Markup().join(
        draw(
            lambda figure, width=width: paint(figure, width),  # type: ignore[misc]
            name=f"{name}-{width}",
            title=title,
            description=description,
            width=WIDTHS[width],
            height=heights[width],
            kind=width,
        )
        for width in WIDTHS
    )
    return FigureBlock(
        name=name,
        title=title,
        caption=caption,
        note=note,
        drawings=drawings,
        headings=list(headings),
        rows=[list(row) for row in rows],
    )


def absent(*, name: str, title: str, reason: str) -> FigureBlock:
    """A figure that could not be drawn, and why."""
    return FigureBlock(name=name, title=title, caption="", note=reason, drawings=Markup(), headings=[], rows=[])


def place(figure: Figure, *, left: float, right: float, top: float, height: float) -> Axes:
    """Axes at these distances from the figure's edges, in CSS pixels."""
    width, whole = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    return figure.add_axes((left / width, 1 - (top + height) / whole, (width - left - right) / width, height / whole))


def lanes(axes: Axes, names: Sequence[str], *, left: float, size: float = 12) -> None:
    """Lanes from the top, each named at the figure's left edge, ``left`` pixels from the axes."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    for lane, name in enumerate(names):
        axes.annotate(
            name,
            (0, lane),
            xycoords=("axes fraction", "data"),
            xytext=(-left, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=size,
        )


def lane_value(axes: Axes, lane: int, text: str, *, right: float) -> None:
    """``text`` in bold at the figure's right edge, ``right`` pixels from the axes."""
    axes.annotate(
        text,
        (1, lane),
        xycoords=("axes fraction", "data"),
        xytext=(right, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=INK,
        fontweight="bold",
    )


class Thousands(ScalarFormatter):
    """Plain numbers of as many decimals as the ticks need, with a comma between thousands."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_scientific(False)

    def __call__(self, x: float, pos: int | None = None) -> str:
        whole, point, decimals = super().__call__(x, pos).partition(".")
        return f"{int(whole):,}{point}{decimals}" if whole.isdecimal() else f"{whole}{point}{decimals}"


def legend(figure: Figure, frameworks: Iterable[FrameworkName], *, line: bool, mark: bool) -> None:
    """The frameworks' marks and lines, at the figure's upper left."""
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            linestyle=look.dashes if line else "none",
            linewidth=2,
            marker=look.marker if mark else "none",
            markersize=6,
            markeredgewidth=0,
            label=look.label,
        )
        for look in (LOOK[framework] for framework in frameworks)
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        handlelength=2.6 if line else 1,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.6,
    )


def label(axes: Axes, text: str, *, x: float = 0, above: float = 8, **style: object) -> None:
    """``text`` at the axes' upper left, ``above`` pixels over them and ``x`` to the right."""
    axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(x, above),
        textcoords="offset points",
        annotation_clip=False,
        **style,  # type: ignore[arg-type]
    )


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})
