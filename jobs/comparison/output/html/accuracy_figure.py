"""Test accuracy against what it cost: training time, and energy where it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from jobs.comparison.input.metrics import TRAINED_TO_THE_END
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock, framework_legend, subsample
from jobs.comparison.output.html.runs_figure import MAX_MARKS
from jobs.comparison.output.html.svg import (
    AXIS_HEIGHT,
    AXIS_TITLE_HEIGHT,
    drawing,
    element,
    grid,
    linear_scale,
    marks,
    plot_area,
    polyline,
    text,
    x_axis,
)
from jobs.comparison.output.tables import Table, accuracy_cell, value_cell
from jobs.comparison.text import ABSENT, counted, number

if TYPE_CHECKING:
    from jobs.comparison.schema import MetricName, RunRow, Section
    from jobs.report.schema import FrameworkName

Points = dict["FrameworkName", list[tuple[float, float]]]

_COSTS: Final[tuple[tuple[MetricName, str, str], ...]] = (
    ("train_wall_s", "Test accuracy (%) against training time", "training time, s"),
    ("gpu_energy_j", "Test accuracy (%) against GPU energy in training", "energy, J"),
)
_TITLE, _PLOT, _GAP = 26, 200, 24


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Points of (cost, accuracy in percent): the runs, and each side's medians after every epoch."""

    title: str
    x_title: str
    runs: Points
    epochs: Points


def accuracy_figure(section: Section, name: str) -> FigureBlock:
    """Accuracy by epoch and of every run, against time and energy."""
    title = "What accuracy costs"
    panels = [panel for cost in _COSTS if (panel := _panel(section, *cost)) is not None]
    if not panels:
        return FigureBlock(title=title, note="No run has both an accuracy and a training time.")
    has_lines = any(len(points) > 1 for panel in panels for points in panel.epochs.values())
    panel_height = _TITLE + _PLOT + AXIS_HEIGHT + AXIS_TITLE_HEIGHT + _GAP
    reached = [
        f"{DISPLAY_NAMES[side.framework]} reaches {100 * side.epochs[-1].median:.2f} % after "
        f"{number(side.epochs[-1].train_s)} s"
        for side in section.sides
        if side.epochs
    ]
    return FigureBlock(
        title=title,
        caption=(
            "Lines join each side's medians after every epoch; pale marks are the runs, where they ended. "
            if has_lines
            else "One mark is one run, where it ended. "
        )
        + "Evaluation is not counted as training time.",
        legend=framework_legend([side.framework for side in section.sides if side.framework in panels[0].runs]),
        drawing=drawing(
            *(_draw_panel(panel, top=panel_height * index) for index, panel in enumerate(panels)),
            name=name,
            title=title,
            description="; ".join(reached) or "one mark a run",
            height=panel_height * len(panels) - _GAP,
        ),
        note=None if len(panels) == len(_COSTS) else f"No energy is shown: {_why_no_energy(section)}.",
        table=Table(
            ["framework", "median or run", "training time, s", "GPU energy, J", "test accuracy, %"], _rows(section)
        ),
    )


def _panel(section: Section, cost: MetricName, title: str, x_title: str) -> _Panel | None:
    runs: Points = {}
    for side in section.sides:
        points = [point for row in section.runs if row.framework == side.framework and (point := _point(row, cost))]
        if points:
            runs[side.framework] = [points[index] for index in subsample(len(points), MAX_MARKS)]
    if not runs:
        return None
    epochs: Points = {}
    if cost == "train_wall_s":
        epochs = {side.framework: [(epoch.train_s, 100 * epoch.median) for epoch in side.epochs] for side in section.sides}
    return _Panel(title=title, x_title=x_title, runs=runs, epochs=epochs)


def _point(row: RunRow, cost: MetricName) -> tuple[float, float] | None:
    accuracy, spent = _reached(row), row.metrics[cost]
    return None if accuracy is None or spent is None else (spent, 100 * accuracy)


def _reached(row: RunRow) -> float | None:
    """The test accuracy of a run that trained to its end."""
    return row.metrics["test_accuracy_ratio"] if row.status in TRAINED_TO_THE_END else None


def _why_no_energy(section: Section) -> str:
    return min((row.missing["gpu_energy_j"] for row in section.runs if "gpu_energy_j" in row.missing), default=ABSENT)


def _draw_panel(panel: _Panel, *, top: float) -> Markup:
    lines = {framework: points for framework, points in panel.epochs.items() if len(points) > 1}
    every_point = [point for points in (*panel.runs.values(), *lines.values()) for point in points]
    x_scale = linear_scale([x for x, _ in every_point], margin=0.05)
    y_scale = linear_scale([y for _, y in every_point], margin=0.1)
    parts = grid(y_scale, height=_PLOT)
    for framework, runs in panel.runs.items():
        points = [(x_scale.x(x), y_scale.y(y, _PLOT)) for x, y in runs]
        side = element("g", marks(framework, points), class_="pale" if framework in lines else None)
        if framework in lines:
            medians = [(x_scale.fraction(x), y_scale.y(y, _PLOT)) for x, y in lines[framework]]
            side += polyline(medians, height=_PLOT)
            side += marks(framework, [(f"{100 * x:.2f}%", y) for x, y in medians], small=True)
        parts += element("g", side, class_=framework)
    parts += x_axis(x_scale, y=_PLOT, title=panel.x_title)
    return text(panel.title, y=top + 12, class_="strong") + plot_area(parts, y=top + _TITLE, height=_PLOT)


def _rows(section: Section) -> list[list[str]]:
    """Each side's medians by epoch, then its runs."""
    rows: list[list[str]] = []
    for side in section.sides:
        name = DISPLAY_NAMES[side.framework]
        rows += [
            [
                name,
                f"median of {counted(epoch.n, 'run')}, epoch {epoch.epoch}",
                number(epoch.train_s),
                ABSENT,
                accuracy_cell(epoch),
            ]
            for epoch in side.epochs
        ]
        rows += [
            [name, row.run_id, *(value_cell(row, metric) for metric in ("train_wall_s", "gpu_energy_j", "test_accuracy_ratio"))]
            for row in section.runs
            if row.framework == side.framework and _reached(row) is not None
        ]
    return rows
