"""What the devices did over time, both sides from the moment training began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.output.html.figures.figure import Thousands, absent, drawn, label, legend, place
from jobs.comparison.output.html.theme import INK, LOOK, QUIET, RULE
from jobs.comparison.output.html.timelines import Timeline, binned
from jobs.comparison.text import ABSENT, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jobs.comparison.input.metrics import Missing
    from jobs.comparison.output.html.figures.figure import FigureBlock, Width

GPU_COLUMNS: Final = {
    "util_percent": "GPU utilization, % of time with some kernel",
    "sm_util_percent": "Busy multiprocessors (SM), %",
    "power_w": "GPU power, W",
}
HOST_COLUMNS: Final = {"cpu_percent": "CPU, % of one core"}

MAX_POINTS: Final = 400
"""Points of one line; more samples than that are drawn as their means."""
TABLE_ROWS: Final = 16

_PLOT, _HEAD, _FOOT, _LEGEND = 120, 34, 26, 26


def timeline_plate(found: Sequence[Timeline | Missing], name: str) -> FigureBlock:
    """Utilization, multiprocessors and power over time, or the CPU where there is no GPU."""
    title = "Over time"
    lines = [one for one in found if isinstance(one, Timeline)]
    lacking = [one.reason for one in found if not isinstance(one, Timeline)]
    columns = _columns(lines)
    if not columns:
        return absent(name=name, title=title, reason=_sentences(lacking) or "No report carries samples.")
    start_s, end_s = _span(lines, columns)

    def paint(figure: Figure, width: Width) -> None:
        for index, (column, heading) in enumerate(columns.items()):
            top = _LEGEND + index * (_HEAD + _PLOT + _FOOT) + _HEAD
            axes = place(figure, left=48, right=20, top=top, height=_PLOT)
            label(axes, heading, x=-48, above=12, color=INK, fontweight="bold", fontsize=12.5)
            _paint_panel(axes, lines, column, (start_s, end_s))
            axes.locator_params(axis="x", nbins=9 if width == "wide" else 5)
            if index == len(columns) - 1:
                axes.set_xlabel("seconds since training began")
        legend(figure, [line.framework for line in lines], line=True, mark=False)

    height = float(_LEGEND + len(columns) * (_HEAD + _PLOT + _FOOT) + 22)
    reasons = sorted({line.no_gpu for line in lines if line.no_gpu})
    notes = [f"No GPU figures: {reason}" for reason in reasons] + lacking
    if any(_leaves_the_frame(lines, name) for name in columns):
        notes.append("Some readings outside training lie above the frame; the table has them")
    return drawn(
        paint,
        name=name,
        title=title,
        caption=(
            "One run a side, the one in the middle by speed ("
            + ", ".join(f"{LOOK[line.framework].label}: {line.run_id}" for line in lines)
            + "). The upright lines mark where each side's training began and ended."
        ),
        description="; ".join(
            f"{heading}: mean while training {', '.join(_mean(line, column) for line in lines)}"
            for column, heading in columns.items()
        ),
        heights={"wide": height, "narrow": height},
        headings=[
            "seconds",
            *(f"{LOOK[line.framework].label}: {heading}" for heading in columns.values() for line in lines),
        ],
        rows=_rows(lines, columns, start_s, end_s),
        note=_sentences(notes) or None,
    )


def _columns(lines: Sequence[Timeline]) -> dict[str, str]:
    for choice in (GPU_COLUMNS, HOST_COLUMNS):
        there = {name: heading for name, heading in choice.items() if any(name in line.columns for line in lines)}
        if there:
            return there
    return {}


def _span(lines: Sequence[Timeline], columns: dict[str, str]) -> tuple[float, float]:
    times = [t_s for line in lines for name in columns for t_s, _ in line.columns.get(name, [])]
    low, high = min(0.0, *times), max(0.0, *(line.trained_s for line in lines), *times)
    return low, max(high, low + 1e-3)


def _paint_panel(axes: Axes, lines: Sequence[Timeline], column: str, span: tuple[float, float]) -> None:
    start_s, end_s = span
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.axvline(0, color=QUIET, linewidth=1)
    for line in lines:
        look = LOOK[line.framework]
        points = line.columns.get(column, [])
        axes.axvline(line.trained_s, color=look.color, linewidth=1, linestyle=look.dashes)
        if len(points) > MAX_POINTS:
            width_s = (end_s - start_s) / MAX_POINTS
            means = binned(points, start_s=start_s, end_s=end_s, bins=MAX_POINTS)
            points = [
                (start_s + (index + 0.5) * width_s, value) for index, value in enumerate(means) if value is not None
            ]
        if points:
            axes.plot(*zip(*points, strict=True), color=look.color, linestyle=look.dashes, linewidth=1.6)
    axes.set_xlim(start_s, end_s)
    axes.set_ylim(0, _top(lines, column))
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(Thousands())
    axes.xaxis.set_major_formatter(Thousands())


def _top(lines: Sequence[Timeline], column: str) -> float:
    """The scale's end, set by training alone: one odd reading at the start must not flatten the rest."""
    values = [value for line in lines for t_s, value in line.columns.get(column, []) if 0 <= t_s <= line.trained_s]
    return 1.08 * max(values, default=0) or 1.0


def _leaves_the_frame(lines: Sequence[Timeline], column: str) -> bool:
    top = _top(lines, column)
    return any(value > top for line in lines for _, value in line.columns.get(column, []))


def _mean(line: Timeline, column: str) -> str:
    values = [value for t_s, value in line.columns.get(column, []) if 0 <= t_s <= line.trained_s]
    return f"{LOOK[line.framework].label} {number(sum(values) / len(values)) if values else ABSENT}"


def _rows(lines: Sequence[Timeline], columns: dict[str, str], start_s: float, end_s: float) -> list[list[str]]:
    """Means over equal spans of time."""
    cells = [
        binned(line.columns.get(name, []), start_s=start_s, end_s=end_s, bins=TABLE_ROWS)
        for name in columns
        for line in lines
    ]
    width_s = (end_s - start_s) / TABLE_ROWS
    return [
        [
            f"{start_s + index * width_s:.1f} to {start_s + (index + 1) * width_s:.1f}",
            *(ABSENT if (value := cell[index]) is None else number(value) for cell in cells),
        ]
        for index in range(TABLE_ROWS)
    ]


def _sentences(texts: Sequence[str]) -> str:
    return " ".join(f"{text.rstrip('.')}." for text in texts)
