"""Test accuracy against training time, and against energy if it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.output.html import svg
from jobs.comparison.output.html.drawn_runs import COSTS
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock, framework_legend, subsample
from jobs.comparison.output.html.runs_figure import MAX_MARKS
from jobs.comparison.output.tables import Table, accuracy_cell, value_cell
from jobs.comparison.text import ABSENT, number, pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.output.html.drawn_runs import DrawnRuns
    from jobs.comparison.schema import Section

Points = dict["FrameworkName", list[tuple[float, float]]]
"""(cost, accuracy in percent) by framework."""

_PANELS: Final = {
    "train_wall_s": ("Test accuracy (%) against training time", "training time, s"),
    "gpu_energy_j": ("Test accuracy (%) against GPU energy", "energy, J"),
}
_PLOT: Final = 200
_PANEL: Final = svg.PANEL_TITLE_HEIGHT + _PLOT + svg.AXIS_HEIGHT + svg.AXIS_TITLE_HEIGHT + 24


def accuracy_figure(section: Section, runs: Mapping[FrameworkName, DrawnRuns], *, max_rows: int) -> FigureBlock:
    """Accuracy by epoch and of every run, against time and energy; its table has ``max_rows`` rows."""
    title = "Accuracy against time and energy"
    panels: list[Markup] = []
    for index, cost in enumerate(COSTS):
        points, epochs = _run_points(runs, index), _epoch_points(section) if cost == "train_wall_s" else {}
        if points:
            panel_title, x_title = _PANELS[cost]
            plot = _plot(points, epochs, x_title)
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
        note=None if len(panels) == len(COSTS) else f"No energy is shown: {_why_no_energy(runs)}.",
        table=_table(section, runs, max_rows),
    )


def _run_points(runs: Mapping[FrameworkName, DrawnRuns], cost: int) -> Points:
    """A point for each run, at most :data:`MAX_MARKS` per side."""
    points: Points = {}
    for framework, side in runs.items():
        ended = [(spent, 100 * run.accuracy) for run in side.ended if (spent := run.costs[cost]) is not None]
        if ended:
            points[framework] = [ended[index] for index in subsample(len(ended), MAX_MARKS)]
    return points


def _epoch_points(section: Section) -> Points:
    """Each side's medians after every epoch, where there are several."""
    return {
        side.framework: [(epoch.train_s, 100 * epoch.median) for epoch in side.epochs]
        for side in section.sides
        if len(side.epochs) > 1
    }


def _why_no_energy(runs: Mapping[FrameworkName, DrawnRuns]) -> str:
    return min((reason for side in runs.values() for reason in side.why_no_energy), default=ABSENT)


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


def _table(section: Section, runs: Mapping[FrameworkName, DrawnRuns], max_rows: int) -> Table:
    """Each side's medians by epoch, then its runs."""
    rows: list[list[str]] = []
    left_out = 0
    for side in section.sides:
        name = DISPLAY_NAMES[side.framework]
        for epoch in side.epochs:
            median = f"median of {pluralize(epoch.n, 'run')}, epoch {epoch.epoch}"
            rows.append([name, median, number(epoch.train_s), ABSENT, accuracy_cell(epoch)])
        ended = runs[side.framework].ended
        shown = ended[: max(0, max_rows - len(rows))]
        left_out += len(ended) - len(shown)
        for run in shown:
            costs = [value_cell(cost, value) for cost, value in zip(COSTS, run.costs, strict=True)]
            rows.append([name, run.run_id, *costs, value_cell("test_accuracy_ratio", run.accuracy)])
    headings = ["framework", "median or run", "training time, s", "GPU energy, J", "test accuracy, %"]
    return Table(headings, rows, left_out)
