"""Test accuracy against what it cost: training time, and energy where it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import TRAINED_TO_THE_END
from jobs.comparison.output.html.figures.figure import Thousands, absent, drawn, label, legend, place, thinned
from jobs.comparison.output.html.figures.runs import MAX_DOTS
from jobs.comparison.output.html.theme import INK, LOOK, RULE
from jobs.comparison.text import ABSENT, counted, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jobs.comparison.output.html.figures.figure import FigureBlock, Width
    from jobs.comparison.schema import MetricName, RunRow, Section
    from jobs.report.schema import FrameworkName

_PLOT, _HEAD, _FOOT, _LEGEND = 200, 40, 54, 20


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Accuracy against one cost: a point a run, and where there are epochs, each side's way there."""

    title: str
    axis: str
    points: dict[FrameworkName, list[tuple[float, float]]]
    ways: dict[FrameworkName, list[tuple[float, float]]]


_COSTS: Final[tuple[tuple[MetricName, str, str], ...]] = (
    ("train_wall_s", "Test accuracy (%) against training time", "training time, s"),
    ("gpu_energy_j", "Test accuracy (%) against GPU energy in training", "energy, J"),
)


def accuracy_plate(section: Section, name: str) -> FigureBlock:
    """Accuracy by epoch and of every run, against time and energy."""
    title = "What accuracy costs"
    panels = [panel for cost in _COSTS if (panel := _panel(section, *cost)) is not None]
    if not panels:
        return absent(name=name, title=title, reason="No run has both an accuracy and a training time.")

    def paint(figure: Figure, width: Width) -> None:
        for index, panel in enumerate(panels):
            top = _LEGEND + index * (_HEAD + _PLOT + _FOOT) + _HEAD
            axes = place(figure, left=52, right=76 if width == "wide" else 20, top=top, height=_PLOT)
            _paint_panel(axes, panel, width)
        sides = [side.framework for side in section.sides if side.framework in panels[0].points]
        legend(figure, sides, line=stepwise, mark=True)

    height = float(_LEGEND + len(panels) * (_HEAD + _PLOT + _FOOT))
    stepwise = any(len(way) > 1 for panel in panels for way in panel.ways.values())
    note = None if len(panels) == len(_COSTS) else f"No energy is shown: {_why_no_energy(section)}."
    return drawn(
        paint,
        name=name,
        title=title,
        caption=(
            (
                "Lines join each side's medians after every epoch; pale marks are the runs, where they ended. "
                if stepwise
                else "One mark is one run, where it ended. "
            )
            + "Evaluation is not counted as training time."
        ),
        description="; ".join(
            f"{LOOK[framework].label} reaches {100 * epochs[-1].median:.2f} % after {number(epochs[-1].train_s)} s"
            for side in section.sides
            if (framework := side.framework) and (epochs := side.epochs)
        )
        or "one mark a run",
        heights={"wide": height, "narrow": height},
        headings=["framework", "median or run", "training time, s", "GPU energy, J", "test accuracy, %"],
        rows=_rows(section),
        note=note,
    )


def _rows(section: Section) -> list[list[str]]:
    """Each side's medians by epoch, then the runs."""
    rows: list[list[str]] = []
    for side in section.sides:
        name = LOOK[side.framework].label
        rows += [
            [
                name,
                f"median of {counted(epoch.n, 'run')}, epoch {epoch.epoch}",
                number(epoch.train_s),
                ABSENT,
                f"{100 * epoch.median:.2f} ({100 * epoch.minimum:.2f} to {100 * epoch.maximum:.2f})",
            ]
            for epoch in side.epochs
        ]
        for row in section.runs:
            accuracy = row.metrics["test_accuracy_ratio"]
            if row.framework == side.framework and accuracy is not None and row.status in TRAINED_TO_THE_END:
                spent = (row.metrics[cost] for cost, _, _ in _COSTS)
                costs = [ABSENT if value is None else number(value) for value in spent]
                rows.append([name, row.run_id, *costs, f"{100 * accuracy:.2f}"])
    return rows


def _panel(section: Section, cost: MetricName, title: str, axis: str) -> _Panel | None:
    points: dict[FrameworkName, list[tuple[float, float]]] = {}
    for side in section.sides:
        found = [point for row in section.runs if row.framework == side.framework and (point := _point(row, cost))]
        if found:
            points[side.framework] = [found[index] for index in thinned(len(found), MAX_DOTS)]
    if not points:
        return None
    ways = {side.framework: [(epoch.train_s, 100 * epoch.median) for epoch in side.epochs] for side in section.sides}
    return _Panel(title=title, axis=axis, points=points, ways=ways if cost == "train_wall_s" else {})


def _point(row: RunRow, cost: MetricName) -> tuple[float, float] | None:
    accuracy, spent = row.metrics["test_accuracy_ratio"], row.metrics[cost]
    if accuracy is None or spent is None or row.status not in TRAINED_TO_THE_END:
        return None
    return spent, 100 * accuracy


def _why_no_energy(section: Section) -> str:
    reasons = {row.missing["gpu_energy_j"] for row in section.runs if "gpu_energy_j" in row.missing}
    return min(reasons, default=ABSENT)


def _paint_panel(axes: Axes, panel: _Panel, width: Width) -> None:
    label(axes, panel.title, x=-52, above=14, color=INK, fontweight="bold", fontsize=12.5)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    for framework, points in panel.points.items():
        look = LOOK[framework]
        way = panel.ways.get(framework, [])
        if len(way) > 1:
            axes.plot(*zip(*way, strict=True), color=look.color, linestyle=look.dashes, linewidth=2)
            axes.plot(*zip(*way, strict=True), look.marker, color=look.color, markersize=5, markeredgewidth=0)
        axes.plot(
            *zip(*points, strict=True),
            look.marker,
            color=look.color,
            markersize=7,
            markeredgewidth=0,
            alpha=0.45 if len(way) > 1 else 0.85,
        )
    axes.margins(x=0.05, y=0.1)
    axes.locator_params(axis="x", nbins=6 if width == "wide" else 4)
    axes.locator_params(axis="y", nbins=5)
    axes.xaxis.set_major_formatter(Thousands())
    axes.yaxis.set_major_formatter(Thousands())
    axes.set_xlabel(panel.axis)
