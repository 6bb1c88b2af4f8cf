"""Samples over time of one run a side, read again from its report: memory holds none of them until here."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from jobs.comparison.input.metrics import HEADLINE, Missing, null_reason, plausible
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.report import Report
    from jobs.report.schema import FrameworkName

SectionKey = tuple[str, str]
"""Recipe and protocol."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One run's samples; ``columns`` has (seconds since training began, value) by name, nulls and absurd ones left out.

    ``trained_s`` is when the last training phase ended; ``no_gpu`` is why there are no GPU figures, if so.
    """

    framework: FrameworkName
    run_id: str
    trained_s: float
    columns: dict[str, list[tuple[float, float]]]
    no_gpu: str | None


def timelines(runs: Iterable[RunSummary]) -> dict[SectionKey, list[Timeline | Missing]]:
    """For each section one timeline a side, of the run whose speed is the side's median, or why there is none."""
    sides: dict[SectionKey, dict[FrameworkName, list[RunSummary]]] = {}
    for run in runs:
        if run.timed:
            sides.setdefault((run.recipe, run.protocol), {}).setdefault(run.framework, []).append(run)
    return {key: [_of_side(side[framework]) for framework in sorted(side)] for key, side in sides.items()}


def _of_side(runs: Sequence[RunSummary]) -> Timeline | Missing:
    framework = runs[0].framework
    with_series = [run for run in runs if run.has_series]
    if not with_series:
        return Missing(reason=f"no {framework} report carries samples: a log's line leaves them to the report file")
    run = _typical(with_series)
    if run is None:
        return Missing(reason=f"no {framework} run with samples has completed")
    try:
        return _timeline(run.whole())
    except BadInput as error:
        return Missing(reason=f"{framework}: {error}")


def _typical(runs: Sequence[RunSummary]) -> RunSummary | None:
    """The run in the middle by speed, the lower of two; the run id decides among equals."""
    measured = [
        (speed, run.run_id, run.attempt, run)
        for run in runs
        if HEADLINE.counts(run) and not isinstance(speed := run.measured[HEADLINE.name], Missing)
    ]
    return sorted(measured, key=lambda entry: entry[:3])[(len(measured) - 1) // 2][3] if measured else None


def _timeline(report: Report) -> Timeline | Missing:
    framework = report.config.framework
    training = [phase for phase in report.phases if phase.name in {"first_step", "train"}]
    if report.timeseries is None or not training:
        return Missing(reason=f"{framework}: the report has no samples of training")
    begin_s = min(phase.start_s for phase in training)
    trained_s = max(phase.end_s for phase in training) - begin_s
    if not plausible(trained_s):
        return Missing(reason=f"{framework}: training comes to {trained_s:.4g} s, which no run can have")
    series = report.timeseries
    columns = {
        name: [
            (t_s - begin_s, value)
            for t_s, value in zip(series.t_s, values, strict=False)
            if value is not None and plausible(value) and plausible(t_s - begin_s)
        ]
        for name, values in zip(series.columns, series.values, strict=False)
    }
    gpu = columns.get("util_percent") or columns.get("power_w")
    return Timeline(
        framework=framework,
        run_id=report.run_id,
        trained_s=trained_s,
        columns={name: sorted(points) for name, points in columns.items() if points},
        no_gpu=None if gpu else null_reason(report, "phases[].gpu"),
    )


def binned(points: Sequence[tuple[float, float]], *, start_s: float, end_s: float, bins: int) -> list[float | None]:
    """Mean value in each of ``bins`` equal spans of ``start_s`` … ``end_s``, ``None`` where no sample fell."""
    width_s = (end_s - start_s) / bins
    inside: list[list[float]] = [[] for _ in range(bins)]
    for t_s, value in points:
        if start_s <= t_s <= end_s and width_s > 0:
            inside[min(bins - 1, int((t_s - start_s) / width_s))].append(value)
    return [fsum(values) / len(values) if values else None for values in inside]
