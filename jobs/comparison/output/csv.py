"""Every run as a row of a CSV file, for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import METRICS
from jobs.comparison.text import csv_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.comparison.schema import Comparison, RunRow
    from jobs.comparison.schema_base import MetricName

_RUN_FIELDS: Final = ("framework", "framework_version", "seed", "run_id", "attempt", "status", "status_reason")
_READ: Final[tuple[MetricName, ...]] = ("gpu_util_percent", "gpu_sm_util_percent", "gpu_power_w")
"""The means of readings: each also has their number and the share of training that they stand for."""

COLUMNS: Final = (
    "recipe",
    "protocol",
    *_RUN_FIELDS,
    "started_at_utc",
    "node",
    "gpu_uuids",
    *(metric.name for metric in METRICS),
    *(column for name in _READ for column in (f"{name}_readings", f"{name}_coverage_ratio")),
    "ranks",
    "reduction",
    "scaling",
    "efficiency_ratio",
    "source",
    "comparison_id",
)


def csv_lines(comparison: Comparison) -> Iterator[str]:
    """One line of headings, then a line for each run, in comparison.json's order; a missing value is an empty cell.

    Text from reports is on one line and is no formula to a spreadsheet; numbers are as in comparison.json.
    """
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    yield line.getvalue()
    for section in comparison.sections:
        for run in section.runs:
            values = (
                section.recipe,
                section.protocol,
                *(getattr(run, field) for field in _RUN_FIELDS),
                run.started_at_utc.isoformat(),
                run.node,
                " ".join(run.gpu_uuids),
                *(run.metrics[metric.name] for metric in METRICS),
                *(value for name in _READ for value in _readings(run, name)),
                section.ranks,
                section.reduction,
                section.scaling,
                run.efficiency_ratio,
                run.source,
                comparison.comparison_id,
            )
            line.seek(0)
            line.truncate()
            writer.writerow(csv_cell(value) if isinstance(value, str) else value for value in values)
            yield line.getvalue()


def _readings(run: RunRow, name: MetricName) -> tuple[int | None, float | None]:
    readings = run.readings.get(name)
    return (None, None) if readings is None else (readings.n, readings.coverage_ratio)
