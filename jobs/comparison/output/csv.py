"""Every run as a row of a CSV file, for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from jobs.comparison.input.metrics import METRICS
from jobs.comparison.text import csv_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.comparison.schema import Comparison, RunRow, Section

COLUMNS: Final = (
    "recipe",
    "protocol",
    "framework",
    "framework_version",
    "seed",
    "run_id",
    "attempt",
    "status",
    "status_reason",
    "started_at_utc",
    "node",
    "gpu_uuids",
    *(metric.name for metric in METRICS),
    "source",
    "comparison_id",
)


def runs_csv(comparison: Comparison) -> str:
    """One line of headings, then a line a run, in comparison.json's order; a cell without a value is empty.

    Text out of reports is on one line and is no formula to a spreadsheet; numbers are as in comparison.json.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in comparison.sections:
        for row in section.runs:
            writer.writerow(_cells(comparison, section, row))
    return text.getvalue()


def _cells(comparison: Comparison, section: Section, row: RunRow) -> Iterator[str | int | float | None]:
    yield csv_cell(section.recipe)
    yield section.protocol
    yield row.framework
    yield csv_cell(row.framework_version)
    yield row.seed
    yield csv_cell(row.run_id)
    yield row.attempt
    yield row.status
    yield None if row.status_reason is None else csv_cell(row.status_reason)
    yield row.started_at_utc.isoformat()
    yield None if row.node is None else csv_cell(row.node)
    yield csv_cell(" ".join(row.gpu_uuids))
    for metric in METRICS:
        yield row.metrics[metric.name]
    yield csv_cell(row.source)
    yield comparison.comparison_id
