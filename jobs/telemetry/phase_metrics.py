"""Computes the metrics of each phase from the readings, with a reason for each missing one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from jobs.report import schema
from jobs.report.measuring import MIN_COVERAGE_RATIO
from jobs.telemetry.aggregate import (
    ReadingWindow,
    Series,
    aggregate,
    counter_delta,
    max_in,
    rate_of,
)
from jobs.telemetry.metrics import GPU_METRICS, HOST_METRICS, polled_name
from jobs.telemetry.types import MetricStatus
from jobs.telemetry.validity import INSTANTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.telemetry.aggregate import Interval
    from jobs.telemetry.metrics import Metric
    from jobs.telemetry.sampler_process import SampleStore
    from jobs.telemetry.types import Options

MAX_READINGS: Final = 1_000_000
"""Of a longer run the time series keeps every second, third… reading; statistics use all readings."""

MAX_ENERGY_RATIO: Final = 2.0
"""Between the counter's energy and power times time, beyond which a counter is not believed."""

MIN_ENERGY_S: Final = 1.0
"""NVML's energy counter moves in steps of about 0.1 s: over fewer than ten its growth is off by more than a tenth."""

MIN_POWER_READINGS: Final = 10
"""With fewer, power times time is no check of the counter."""


class MetricReadings(NamedTuple):
    """A metric's readings, the time that each stands for, and their source."""

    series: Series
    window: ReadingWindow
    source: str | None


class PhaseMetrics:
    """Aggregates the sampler's readings over any intervals."""

    def __init__(
        self, store: SampleStore, options: Options, offset_s: float, no_gpu: str | None, no_host: str | None
    ) -> None:
        """``offset_s`` converts from the monotonic clock to the phases'.

        ``no_gpu`` and ``no_host`` are the reasons if nothing at all was read; else ``None``.
        """
        self._no_gpu = no_gpu
        self._no_host = no_host
        self._store = store
        self._options = options
        self._offset_s = offset_s
        self._readings = {metric.name: self._readings_of(metric) for metric in (*GPU_METRICS, *HOST_METRICS)}

    def _readings_of(self, metric: Metric) -> MetricReadings:
        slow_s = self._options.slow_s
        if metric.counter:
            rate = rate_of(self._series(metric.counter))
            return MetricReadings(Series(rate.times, 100 * rate.values), ReadingWindow(3 * slow_s), None)
        polled, status = self._series(metric.name), self._status(metric.name)
        buffered, buffer = self._series(f"{metric.name}.buffered"), self._status(f"{metric.name}.buffered")
        spacing_s = buffer.window_s
        # The buffer's samples leave no gap. They are used if they cover at least 90 % of the polled ones' time.
        if spacing_s and len(buffered.times) * spacing_s >= 0.9 * _length_s(polled) > 0:
            return MetricReadings(buffered, ReadingWindow(2 * spacing_s, spacing_s, since_previous=True), buffer.source)
        interval_s = {"fast": self._options.fast_s, "gpm": self._options.gpm_s}.get(metric.read_at, slow_s)
        window_s = status.window_s or 0.0
        max_gap_s = max(window_s, 3 * interval_s)
        window = ReadingWindow(max_gap_s, window_s, since_previous=metric.read_at == "gpm")
        if status.source is None:
            status = status._replace(source=self._status(polled_name(metric)).source)
        return MetricReadings(polled, window, status.source)

    def _series(self, name: str) -> Series:
        return self._store.series(name, self._offset_s)

    def _status(self, name: str) -> MetricStatus:
        return self._store.status.get(name, MetricStatus())

    def gpu(self, intervals: Sequence[Interval], path: str, reasons: dict[str, str]) -> schema.GpuPhase | None:
        """The GPU's metrics over ``intervals``; the reason of each missing one goes into ``reasons`` under ``path``."""
        if self._no_gpu is not None:
            reasons[path] = self._no_gpu
            return None
        fields = self._values(GPU_METRICS, intervals, path, reasons)
        return schema.GpuPhase(**fields | self._energy(intervals, fields, path, reasons))

    def host(self, intervals: Sequence[Interval], path: str, reasons: dict[str, str]) -> schema.HostPhase | None:
        """The host's metrics over ``intervals``, with or without a GPU."""
        if self._no_host is not None:
            reasons[path] = self._no_host
            return None
        return schema.HostPhase(**self._values(HOST_METRICS, intervals, path, reasons))

    def _values(
        self, metrics: Sequence[Metric], intervals: Sequence[Interval], path: str, reasons: dict[str, str]
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for metric in metrics:
            value = self._value(metric, intervals)
            field, _, key = metric.field.partition(".")
            if key:
                entries = (fields.get(field) or {}) | ({} if value is None else {key: value})
                value = entries or None
            fields[field] = value
            reasons.setdefault(f"{path}.{field}", self._missing_reason(metric))
        return fields

    def _value(self, metric: Metric, intervals: Sequence[Interval]) -> Any:
        series, window, source = self._readings[metric.name]
        value: float | None
        match metric.aggregation:
            case "mean":
                return aggregate(series, intervals, window)
            case "events":
                return None if source is None else self._events(series, intervals)
            case "peak":
                value = max_in(series, intervals)
            case "delta":
                value = counter_delta(series, intervals, max_gap_s=2 * self._options.slow_s)
                if not value:
                    value = self._polled_s(metric, intervals, value)
        return round(value) if value is not None and metric.unit in {"", "B"} else value

    def _polled_s(self, metric: Metric, intervals: Sequence[Interval], counted_s: float | None) -> float | None:
        """Seconds of throttling by its polled state, if that was read for most of the time; else ``counted_s``."""
        polled = self._series(polled_name(metric))
        share = aggregate(polled, intervals, ReadingWindow(3 * self._options.fast_s)) if len(polled.times) else None
        if share is None or share.coverage_ratio < MIN_COVERAGE_RATIO:
            return counted_s
        return share.mean * sum(end_s - start_s for start_s, end_s in intervals)

    def _events(self, series: Series, intervals: Sequence[Interval]) -> list[int]:
        """Events that may lie in an interval: each occurred at some time since the previous reading."""
        since_s = self._series("xid_since_s").values + self._offset_s
        return [
            int(value)
            for since, at_s, value in zip(since_s, *series, strict=True)
            if any(since < end_s and at_s >= start_s for start_s, end_s in intervals)
        ]

    def _missing_reason(self, metric: Metric) -> str:
        error = self._status("host").error if metric.read_at == "host" else self._error(metric)
        return error or metric.null_reason

    def _error(self, metric: Metric) -> str | None:
        """The last error of the GPU's metric; of its polled state where nothing counts it."""
        return self._status(metric.name if metric.sources else polled_name(metric)).error

    def _energy(
        self, intervals: Sequence[Interval], fields: dict[str, Any], path: str, reasons: dict[str, str]
    ) -> dict[str, Any]:
        """Energy from power: a check on the counter, and its replacement if there is none."""
        power, counted_j = fields["power_w"], fields["energy_j"]
        reasons[f"{path}.energy_source"] = reasons[f"{path}.energy_j"]
        reasons[f"{path}.energy_from_power_j"] = (
            reasons[f"{path}.power_w"] if power is None else "power was read for less than 90 % of the time"
        )
        from_power_j, duration_s = None, sum(end_s - start_s for start_s, end_s in intervals)
        if power is not None and power.coverage_ratio >= MIN_COVERAGE_RATIO:
            from_power_j = power.mean * duration_s
        source = None if counted_j is None else self._readings["energy_j"].source
        # If the counter was reset, energy stays unknown.
        if counted_j is None and from_power_j is not None and not len(self._readings["energy_j"].series.times):
            counted_j, source = from_power_j, "power x time"
        elif counted_j is not None and (error := _energy_error(counted_j, duration_s, power, from_power_j)) is not None:
            counted_j, source = None, None
            if "[]" in path:
                # All phases share it: in some the counter was perhaps not read, in others it is too coarse.
                earlier = reasons[f"{path}.energy_j"].split("; or ")
                error = "; or ".join([*earlier[:2], error] if error not in earlier else earlier)
            reasons[f"{path}.energy_j"] = reasons[f"{path}.energy_source"] = error
        return {"energy_j": counted_j, "energy_source": source, "energy_from_power_j": from_power_j}

    def has_lost_readings(self) -> bool:
        """Whether the GPU stopped to answer for a metric that it had answered for; it may have answered again."""
        return any(status.source and status.error for status in map(self._status, INSTANTS))

    def capabilities(self, reasons: dict[str, str]) -> dict[str, schema.Capability]:
        """How each of the GPU's metrics was read in this run, or why it was not."""
        capabilities: dict[str, schema.Capability] = {}
        for metric in GPU_METRICS:
            name, error, (_, window, source) = metric.name, self._error(metric), self._readings[metric.name]
            supported = self._no_gpu is None and source is not None
            missing = error or self._no_gpu or "no reading was taken"
            capabilities[name] = schema.Capability(
                supported=supported,
                source=source,
                error=error if supported else missing,
                window_s=window.window_s or None,
            )
            if not supported:
                reasons[f"telemetry.capabilities.{name}"] = missing
        reasons["telemetry.capabilities"] = "no error occurred; the reading is an instant or a count"
        return capabilities

    def time_series(self) -> schema.TimeSeries | None:
        """All readings except counters other than energy, on one list of times; ``None`` if there are none."""
        columns = {
            metric: self._readings[metric.name].series
            for metric in (*GPU_METRICS, *HOST_METRICS)
            if metric.aggregation in {"mean", "peak"} or metric.name == "energy_j"
        }
        return to_time_series({metric: series for metric, series in columns.items() if len(series.times)})


def to_time_series(columns: Mapping[Metric, Series]) -> schema.TimeSeries | None:
    """The report's time series; readings in the same tenth of a millisecond share a row."""
    if not columns:
        return None
    stride = -(-sum(len(series.times) for series in columns.values()) // MAX_READINGS)
    cells = {
        metric: dict(zip(np.round(series.times[::stride], 4).tolist(), series.values[::stride].tolist(), strict=True))
        for metric, series in columns.items()
    }
    times = sorted(set().union(*cells.values()))
    return schema.TimeSeries(
        columns=[metric.name for metric in columns],
        units=[metric.unit for metric in columns],
        t_s=times,
        values=[[_finite(column.get(at_s)) for at_s in times] for column in cells.values()],
        stride=stride,
    )


def _energy_error(
    counted_j: float, duration_s: float, power: schema.Aggregate | None, from_power_j: float | None
) -> str | None:
    """Why the counter's energy cannot be true; ``None`` if it can."""
    if duration_s < MIN_ENERGY_S:
        return f"the energy counter moves in steps of about 0.1 s, too coarse for less than {MIN_ENERGY_S:.0f} s"
    if counted_j == 0:
        return "the energy counter stood still, though a GPU always draws power"
    if power is None or power.n < MIN_POWER_READINGS or not from_power_j:
        return None
    if 1 / MAX_ENERGY_RATIO <= counted_j / from_power_j <= MAX_ENERGY_RATIO:
        return None
    return f"the energy counter says {counted_j:.3g} J, power times time {from_power_j:.3g} J: one of them is wrong"


def _length_s(series: Series) -> float:
    return float(series.times[-1] - series.times[0]) if len(series.times) else 0.0


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value
