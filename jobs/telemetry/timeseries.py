"""All series on one list of times, as the report keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.report.schema import TimeSeries
from jobs.telemetry.aggregate import Series
from jobs.telemetry.phase_metrics import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_READINGS: Final = 1_000_000
"""A longer run keeps every second, third… reading of each column; the aggregates have seen them all."""


def to_time_series(columns: Mapping[str, Series]) -> TimeSeries | None:
    """``None`` where nothing was recorded."""
    if not columns:
        return None
    # Readings a tenth of a millisecond apart share a row.
    stride = -(-sum(len(series.times) for series in columns.values()) // MAX_READINGS)
    columns = {name: Series(series.times[::stride], series.values[::stride]) for name, series in columns.items()}
    rounded = {name: np.round(series.times, 4) for name, series in columns.items()}
    kept = np.unique(np.concatenate(list(rounded.values())))
    values: list[list[float | None]] = []
    for name, series in columns.items():
        at = dict(zip(rounded[name].tolist(), series.values.tolist(), strict=True))
        values.append([_known(at.get(time)) for time in kept.tolist()])
    return TimeSeries(
        columns=list(columns), units=[UNITS[name] for name in columns], t_s=kept.tolist(), values=values, stride=stride
    )


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value
