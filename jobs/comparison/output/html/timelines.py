"""Telemetry over time since training began, of one run per side.

The samples are read again from the report, since the samples of thousands of runs do not fit in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import HEADLINE, Missing, null_reason, plausible
from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock, framework_legend
from jobs.comparison.output.tables import Table
from jobs.comparison.text import ABSENT, number
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.rank_setting import RankSetting
    from jobs.report import Report

    SectionKey = tuple[str, str, RankSetting]
    """Recipe, protocol and setting of ranks."""

GPU_COLUMNS: Final = {
    "util_percent": "GPU utilization, % of time with some kernel",
    "sm_util_percent": "Busy multiprocessors (SM), %",
    "power_w": "GPU power, W",
}
HOST_COLUMNS: Final = {"cpu_percent": "CPU, % of one core"}

MAX_POINTS: Final = 400
"""Maximum points of one line; of more samples, means are drawn."""

TABLE_ROWS: Final = 16

_PLOT: Final = 120
_PANEL: Final = svg.PANEL_TITLE_HEIGHT + _PLOT + svg.AXIS_HEIGHT + 16


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One run's samples; ``columns`` has (seconds since training began, value) by name, without nulls and errors.

    ``trained_s`` is when the last training phase ended; ``no_gpu`` is the reason if there are no GPU samples.
    """

    framework: FrameworkName
    run_id: str
    trained_s: float
    columns: dict[str, list[tuple[float, float]]]
    no_gpu: str | None


def timelines(runs: Iterable[RunSummary]) -> dict[SectionKey, list[Timeline | Missing]]:
    """For each section one timeline per side, of the run with the median speed, or why there is none."""
    sides: dict[SectionKey, dict[FrameworkName, list[RunSummary]]] = {}
    for run in runs:
        if run.has_training:
            sides.setdefault((run.recipe, run.protocol, run.rank_setting), {}).setdefault(run.framework, []).append(run)
    return {key: [_of_side(side[framework]) for framework in sorted(side)] for key, side in sides.items()}


def _of_side(runs: Sequence[RunSummary]) -> Timeline | Missing:
    framework = runs[0].framework
    with_series = [run for run in runs if run.has_series]
    if not with_series:
        return Missing(reason=f"no {framework} report has a time series: telemetry was off, or these come from logs")
    run = _median_run(with_series)
    if run is None:
        return Missing(reason=f"no {framework} run with samples has completed")
    try:
        return _timeline(run.load_report())
    except BadInput as error:
        return Missing(reason=f"{framework}: {error}")


def _median_run(runs: Sequence[RunSummary]) -> RunSummary | None:
    """The run with the median speed (of two, the lower); ties are ordered by run id."""
    measured = [
        (speed, run.run_id, run.attempt, run)
        for run in runs
        if HEADLINE.counts(run.status) and not isinstance(speed := run.measured(HEADLINE.name), Missing)
    ]
    return sorted(measured, key=lambda entry: entry[:3])[(len(measured) - 1) // 2][3] if measured else None


def _timeline(report: Report) -> Timeline | Missing:
    framework = report.config.framework
    series = report.timeseries
    training = [phase for phase in report.phases if phase.name in {"first_step", "train"}]
    if series is None or not training:
        return Missing(reason=f"{framework}: the report has no samples of training")
    begin_s = min(phase.start_s for phase in training)
    trained_s = max(phase.end_s for phase in training) - begin_s
    if not plausible(trained_s):
        return Missing(reason=f"{framework}: a training time of {trained_s:.4g} s is not plausible")
    columns = {
        name: sorted(
            (t_s - begin_s, value)
            for t_s, value in zip(series.t_s, values, strict=False)
            if value is not None and plausible(value) and plausible(t_s - begin_s)
        )
        for name, values in zip(series.columns, series.values, strict=False)
    }
    has_gpu = columns.get("util_percent") or columns.get("power_w")
    return Timeline(
        framework=framework,
        run_id=report.run_id,
        trained_s=trained_s,
        columns={name: points for name, points in columns.items() if points},
        no_gpu=None if has_gpu else null_reason(report, "phases[].gpu"),
    )


def timeline_figure(timelines_or_reasons: Sequence[Timeline | Missing]) -> FigureBlock:
    """Utilization, multiprocessors and power over time, or the CPU where there is no GPU."""
    title = "Over time"
    runs = [timeline for timeline in timelines_or_reasons if isinstance(timeline, Timeline)]
    missing = [timeline.reason for timeline in timelines_or_reasons if isinstance(timeline, Missing)]
    columns = _columns(runs)
    if not columns:
        return FigureBlock(title=title, note=_sentences(missing) or "No report carries samples.")
    times = [t_s for run in runs for column in columns for t_s, _ in run.columns.get(column, [])]
    scale = svg.linear_scale([0.0, *(run.trained_s for run in runs), *times], max_steps=6)
    notes = [f"No GPU figures: {reason}" for reason in sorted({run.no_gpu for run in runs if run.no_gpu})] + missing
    tops = {column: _top(runs, column) for column in columns}
    if any(value > tops[column] for column in columns for run in runs for _, value in run.columns.get(column, [])):
        notes.append("Some readings outside training lie above the frame; the table has them")
    return FigureBlock(
        title=title,
        caption=(
            "One run a side, the one in the middle by speed ("
            + ", ".join(f"{DISPLAY_NAMES[run.framework]}: {run.run_id}" for run in runs)
            + "). The upright lines mark where each side's training began and ended."
        ),
        legend=framework_legend([run.framework for run in runs]),
        legend_of_lines=True,
        drawing=tuple(
            svg.panel(
                heading,
                _plot(runs, column, scale, tops[column], last=index == len(columns) - 1),
                y=_PANEL * index,
            )
            for index, (column, heading) in enumerate(columns.items())
        ),
        description="; ".join(
            f"{heading}: mean while training {', '.join(_mean(run, column) for run in runs)}"
            for column, heading in columns.items()
        ),
        height=_PANEL * len(columns) + svg.AXIS_TITLE_HEIGHT,
        gutter=True,
        note=_sentences(notes) or None,
        table=Table(
            [
                "seconds",
                *(f"{DISPLAY_NAMES[run.framework]}: {heading}" for heading in columns.values() for run in runs),
            ],
            _rows([run.columns.get(column, []) for column in columns for run in runs], scale),
        ),
    )


def _columns(runs: Sequence[Timeline]) -> dict[str, str]:
    for choice in (GPU_COLUMNS, HOST_COLUMNS):
        present = {name: heading for name, heading in choice.items() if any(name in run.columns for run in runs)}
        if present:
            return present
    return {}


def _plot(runs: Sequence[Timeline], column: str, x_scale: svg.Scale, top: float, *, last: bool) -> Markup:
    y_scale = svg.linear_scale([0.0, top], max_steps=4)
    begin = x_scale.x(0)
    parts = svg.grid(y_scale, height=_PLOT) + svg.element("g", svg.line(begin, begin, 0, _PLOT), class_="quiet")
    for run in runs:
        points = run.columns.get(column, [])
        if len(points) > MAX_POINTS:
            points = [point for point in binned(points, x_scale, bins=MAX_POINTS) if point is not None]
        end = x_scale.x(run.trained_s)
        path = svg.polyline([(x_scale.x(t_s), y_scale.y(value, _PLOT)) for t_s, value in points], height=_PLOT)
        parts += svg.element("g", svg.line(end, end, 0, _PLOT), path, class_=run.framework)
    return parts + svg.x_axis(x_scale, y=_PLOT, title="seconds since training began" if last else None)


def _training_values(run: Timeline, column: str) -> list[float]:
    return [value for t_s, value in run.columns.get(column, []) if 0 <= t_s <= run.trained_s]


def _top(runs: Sequence[Timeline], column: str) -> float:
    """The scale's upper end, from training only, so that an outlier at the start does not compress the rest."""
    return 1.08 * max((value for run in runs for value in _training_values(run, column)), default=0) or 1.0


def _mean(run: Timeline, column: str) -> str:
    values = _training_values(run, column)
    return f"{DISPLAY_NAMES[run.framework]} {number(fsum(values) / len(values)) if values else ABSENT}"


def _rows(lines: Sequence[Sequence[tuple[float, float]]], scale: svg.Scale) -> list[list[str]]:
    """Means over equal intervals of time."""
    means = [binned(points, scale, bins=TABLE_ROWS) for points in lines]
    width_s = (scale.high - scale.low) / TABLE_ROWS
    return [
        [
            f"{scale.low + index * width_s:.1f} to {scale.low + (index + 1) * width_s:.1f}",
            *(ABSENT if (point := line_means[index]) is None else number(point[1]) for line_means in means),
        ]
        for index in range(TABLE_ROWS)
    ]


def binned(points: Iterable[tuple[float, float]], scale: svg.Scale, *, bins: int) -> list[tuple[float, float] | None]:
    """The middle and the mean value of each of ``bins`` equal intervals of ``scale``; ``None`` without a sample."""
    width_s = (scale.high - scale.low) / bins
    inside: list[list[float]] = [[] for _ in range(bins)]
    for t_s, value in points:
        inside[min(bins - 1, int((t_s - scale.low) / width_s))].append(value)
    return [
        (scale.low + (index + 0.5) * width_s, fsum(values) / len(values)) if values else None
        for index, values in enumerate(inside)
    ]


def _sentences(texts: Sequence[str]) -> str:
    return " ".join(f"{text.rstrip('.')}." for text in texts)
