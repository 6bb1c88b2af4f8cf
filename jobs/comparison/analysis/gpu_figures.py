"""How well the GPU figures of a side were measured: by how many readings, over how much of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.statistics import median
from jobs.comparison.input.metrics import METRICS, TOO_SHORT, Missing
from jobs.comparison.schema_base import Readings
from jobs.comparison.text import pluralize
from jobs.report.measuring import too_short_text, training_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.input.metrics import Metric
    from jobs.comparison.input.run_summary import RunSummary


SHOWN_BETWEEN_RATIO: Final = 0.01
"""From this share on, the time between repeats is named: it makes utilization and power lower than in training."""


def fewest_readings(metric: Metric, runs: Sequence[RunSummary]) -> Readings | None:
    """The fewest readings of one of ``runs``, and the lowest coverage; ``None`` where the metric has none."""
    read = [found for run in runs if (found := run.readings.get(metric.name)) is not None]
    return Readings(n=min(n for n, _ in read), coverage_ratio=min(ratio for _, ratio in read)) if read else None


def gpu_text(runs: Sequence[RunSummary]) -> str | None:
    """On what the GPU figures of a side's runs are based, and which were too short to judge; ``None`` without any."""
    measured: list[str] = []
    too_short: list[str] = []
    read: dict[str, RunSummary] = {}
    short: dict[str, RunSummary] = {}
    for metric in METRICS:
        if not metric.is_of_gpu or metric.per_million_images:
            continue
        label = metric.label.removeprefix("GPU ").removesuffix(" in training")
        counted = [run for run in runs if metric.counts(run.status)]
        having = [run for run in counted if not isinstance(run.measured(metric.name), Missing)]
        lacking = [run for run in counted if run.measured(metric.name) == TOO_SHORT]
        read |= {run.run_id: run for run in having}
        short |= {run.run_id: run for run in lacking}
        if readings := fewest_readings(metric, having):
            measured.append(f"{label} {readings.n}, {100 * readings.coverage_ratio:.0f} %")
        if lacking:
            too_short.append(label if len(lacking) == len(counted) else f"{label} of {pluralize(len(lacking), 'run')}")
    texts: list[str] = []
    if measured:
        which = f" (median of {len(read)} runs)" if len(read) > 1 else ""
        trained = training_text(_train_s(read.values()))
        between = median(sorted(run.between_ratio for run in read.values())) or 0.0
        if between >= SHOWN_BETWEEN_RATIO:
            trained += f", {100 * between:.0f} % of it between the repeats"
        listed = "; ".join(measured)
        texts.append(f"GPU figures of {trained}{which}; readings and coverage of a run, at least: {listed}")
    if too_short:
        any_run = next(iter(short.values()))
        text = too_short_text(_train_s(short.values()), repeat=any_run.repeat, epochs=any_run.epochs)
        texts.append(f"GPU {', '.join(too_short)} {text}")
    return ". ".join(texts) or None


def _train_s(runs: Iterable[RunSummary]) -> float:
    """Median time of the train phases."""
    return median(sorted(run.phases_s.get("train", 0.0) for run in runs)) or 0.0
