"""Test accuracy against training time, and against energy if it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import TRAINED_TO_THE_END
from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock, framework_legend, subsample
from jobs.comparison.output.html.runs_figure import MAX_MARKS
from jobs.comparison.output.tables import Table, accuracy_cell, value_cell
from jobs.comparison.text import ABSENT, number, pluralize

if TYPE_CHECKING:
    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.schema import MetricName, RunRow, Section

Points = dict["FrameworkName", list[tuple[float, float]]]
"""(cost, accuracy in percent) by framework."""

_COSTS: Final[tuple[tuple[MetricName, str, str], ...]] = (
    ("train_wall_s", "Test accuracy (%) against training time", "training time, s"),
    ("gpu_energy_j", "Test accuracy (%) against GPU energy", "energy, J"),
)
_PLOT: Final = 200
_PANEL: Final = svg.PANEL_TITLE_HEIGHT + _PLOT + svg.AXIS_HEIGHT + svg.AXIS_TITLE_HEIGHT + 24


def accuracy_figure(section: Section) -> FigureBlock:
    """Accuracy by epoch and of every run, against time and energy."""
    title = "What accuracy costs"
    panels: list[Markup] = []
    for cost, panel_title, x_title in _COSTS:
        runs, epochs = _run_points(section, cost), _epoch_points(section) if cost == "train_wall_s" else {}
        if runs:
            plot = _plot(runs, epochs, x_title)
            panels.append(svg.panel(panel_title, plot, y=_PANEL * len(panels)))
    if not panels:
        return FigureBlock(title=title, note="No run has both an accuracy and a training time.")
    reached = [
        f"{DISPLAY_NAMES[side.framework]} reaches {accuracy_cell(side.epochs[-1])} after "
        f"{number(side.epochs[-1].train_s)} s"
        for side in section.sides
        if side.epochs
    ]
    return FigureBlock(
        title=title,
        caption=(
            "Lines join each side's medians after every epoch; pale marks are the runs, where they ended. "
            if _epoch_points(section)
            else "One mark is one run, where it ended. "
        )
        + "Evaluation is not counted as training time.",
        legend=framework_legend([side.framework for side in section.sides]),
        drawing=tuple(panels),
        description="; ".join(reached) or "one mark a run",
        height=_PANEL * len(panels),
        gutter=True,
        note=None if len(panels) == len(_COSTS) else f"No energy is shown: {_why_no_energy(section)}.",
        table=Table(
            ["framework", "median or run", "training time, s", "GPU energy, J", "test accuracy, %"], _rows(section)
        ),
    )


def _run_points(section: Section, cost: MetricName) -> Points:
    """A point for each run, at most :data:`MAX_MARKS` per side."""
    points: Points = {}
    for row in section.runs:
        accuracy, spent = _reached(row), row.metrics[cost]
        if accuracy is not None and spent is not None:
            points.setdefault(row.framework, []).append((spent, 100 * accuracy))
    return {framework: [side[index] for index in subsample(len(side), MAX_MARKS)] for framework, side in points.items()}


def _epoch_points(section: Section) -> Points:
    """Each side's medians after every epoch, where there are several."""
    return {
        side.framework: [(epoch.train_s, 100 * epoch.median) for epoch in side.epochs]
        for side in section.sides
        if len(side.epochs) > 1
    }


def _reached(row: RunRow) -> float | None:
    """The test accuracy of a run that trained to its end."""
    return row.metrics["test_accuracy_ratio"] if row.status in TRAINED_TO_THE_END else None


def _why_no_energy(section: Section) -> str:
    return min((row.missing["gpu_energy_j"] for row in section.runs if "gpu_energy_j" in row.missing), default=ABSENT)


def _plot(runs: Points, epochs: Points, x_title: str) -> Markup:
    every_point = [point for points in (*runs.values(), *epochs.values()) for point in points]
    x_scale = svg.linear_scale([x for x, _ in every_point], margin=0.05)
    y_scale = svg.linear_scale([y for _, y in every_point], margin=0.1)
    parts = svg.grid(y_scale, height=_PLOT)
    for framework, points in runs.items():
        medians = [(x_scale.x(x), y_scale.y(y, _PLOT)) for x, y in epochs.get(framework, [])]
        marks = svg.marks(framework, [(x_scale.x(x), y_scale.y(y, _PLOT)) for x, y in points])
        side = svg.element("g", marks, class_="pale" if medians else None)
        if medians:
            side += svg.polyline(medians, height=_PLOT) + svg.marks(framework, medians, small=True)
        parts += svg.element("g", side, class_=framework)
    return parts + svg.x_axis(x_scale, y=_PLOT, title=x_title)


def _rows(section: Section) -> list[list[str]]:
    """Each side's medians by epoch, then its runs."""
    rows: list[list[str]] = []
    for side in section.sides:
        name = DISPLAY_NAMES[side.framework]
        for epoch in side.epochs:
            median = f"median of {pluralize(epoch.n, 'run')}, epoch {epoch.epoch}"
            rows.append([name, median, number(epoch.train_s), ABSENT, accuracy_cell(epoch)])
        for row in section.runs:
            if row.framework == side.framework and _reached(row) is not None:
                costs = [value_cell(row, cost) for cost, _, _ in _COSTS]
                rows.append([name, row.run_id, *costs, value_cell(row, "test_accuracy_ratio")])
    return rows
