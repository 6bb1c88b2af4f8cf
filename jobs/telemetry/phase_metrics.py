"""The figures of a stretch of a run: what each is made from, and why one is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.report import schema
from jobs.telemetry.aggregate import ReadingWindow, Series, aggregate, counted, highest, rate_of
from jobs.telemetry.sampler.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.telemetry.aggregate import Interval
    from jobs.telemetry.sample_store import SampleStore
    from jobs.telemetry.types import Options

AVERAGED: Final = {
    "util_percent": "%",
    "memory_util_percent": "%",
    "graphics_util_percent": "%",
    "sm_util_percent": "%",
    "sm_occupancy_percent": "%",
    "tensor_util_percent": "%",
    "hmma_util_percent": "%",
    "fp32_util_percent": "%",
    "dram_bandwidth_util_percent": "%",
    "pcie_tx_bytes_per_s": "B/s",
    "pcie_rx_bytes_per_s": "B/s",
    "power_w": "W",
    "sm_clock_hz": "Hz",
    "memory_clock_hz": "Hz",
    "temperature_c": "°C",
}
"""Figures that are aggregated over a stretch, and their units."""

THROTTLE_CAUSES: Final = (
    "power_cap",
    "thermal",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "board_limit",
    "reliability",
    "sync_boost",
)

COUNTED: Final = (
    "pcie_tx_bytes",
    "pcie_rx_bytes",
    "ecc_corrected_errors",
    "ecc_uncorrected_errors",
    "row_remaps_corrected",
    "row_remaps_uncorrected",
)

UNITS: Final = (
    AVERAGED
    | {"memory_used_bytes": "B", "memory_reserved_bytes": "B", "energy_j": "J"}
    | {"cpu_percent": "%", "main_thread_percent": "%", "rss_bytes": "B"}
)
"""Of every column that a time series may have."""

METRICS: Final = (
    *AVERAGED,
    "memory_used_bytes",
    "memory_reserved_bytes",
    "energy_j",
    *(f"throttle_s.{cause}" for cause in THROTTLE_CAUSES),
    *COUNTED,
    "xid_errors",
)
"""Everything that is read of a GPU: each has an entry among the capabilities."""

TOO_SHORT: Final = "no reading fell into a stretch this short"
NOT_BOTH_ENDS: Final = "not read at both ends, or the counter was reset in between"
MIN_CPU_GAP_S: Final = 0.1
"""The operating system counts CPU time in hundredths of a second: quotients of less mean little."""


@dataclass(frozen=True)
class Source:
    """Where a metric's readings came from in this run."""

    series: Series
    reach: ReadingWindow
    source: str | None


class PhaseMetrics:
    """Makes the figures of any stretch from what the sampler recorded."""

    def __init__(self, record: SampleStore, options: Options, offset_s: float, absent: str | None) -> None:
        """``offset_s`` leads from the monotonic clock to the phases'; ``absent`` says why there is no GPU at all."""
        self._record = record
        self._options = options
        self._offset_s = offset_s
        self.absent = absent
        self._sources = {name: self._source(name) for name in (*AVERAGED, "memory_used_bytes")}
        self._counters = {
            name: record.series(name, offset_s)
            for name in ("energy_j", "memory_reserved_bytes", *COUNTED, *(f"throttle_s.{c}" for c in THROTTLE_CAUSES))
        }
        self._host = {
            "cpu_percent": _percent(record.series("cpu_s", offset_s)),
            "main_thread_percent": _percent(record.series("main_thread_s", offset_s)),
            "rss_bytes": record.series("rss_bytes", offset_s),
            "cgroup_throttled_s": record.series("cgroup_throttled_s", offset_s),
        }
        self._xids = [(since_s + offset_s, at_s + offset_s, xid) for since_s, at_s, xid in record.xids]

    def _source(self, name: str) -> Source:
        status = self._record.status
        polled = self._record.series(name, self._offset_s)
        buffered = self._record.series(f"{name}.buffered", self._offset_s)
        spacing_s = status.get(f"{name}.buffered", Status()).window_s
        # The driver's own samples leave no gap; they count where they reach as far as the polled ones do.
        if spacing_s and len(buffered.times) * spacing_s >= 0.9 * _length_s(polled) > 0:
            reach = ReadingWindow(max_gap_s=2 * spacing_s, window_s=spacing_s, since_previous=True)
            return Source(buffered, reach, status[f"{name}.buffered"].source)
        mine = status.get(name, Status())
        interval_s = self._options.slow_s if name == "temperature_c" else self._options.fast_s
        if mine.source == "GPM":
            gpm_s = self._options.gpm_s
            return Source(polled, ReadingWindow(max_gap_s=3 * gpm_s, window_s=gpm_s, since_previous=True), "GPM")
        window_s = mine.window_s or 0.0
        return Source(polled, ReadingWindow(max_gap_s=max(window_s, 3 * interval_s), window_s=window_s), mine.source)

    def why_missing(self, name: str, otherwise: str) -> str:
        """Why a GPU metric has no figure."""
        status = self._record.status.get(name)
        return self.absent or (status.error if status is not None and status.error else otherwise)

    def gpu(self, stretches: Sequence[Interval], path: str, reasons: dict[str, str]) -> schema.GpuPhase | None:
        """The GPU's figures over ``stretches``; the reason of each that is missing goes under ``path``."""
        if self.absent is not None:
            reasons[path] = self.absent
            return None
        fields: dict[str, Any] = {}
        for name in AVERAGED:
            source = self._sources[name]
            fields[name] = aggregate(source.series, stretches, source.reach)
            reasons[f"{path}.{name}"] = self.why_missing(name, TOO_SHORT)
        for name in COUNTED:
            delta = self._counted(name, stretches)
            fields[name] = None if delta is None else round(delta)
            reasons[f"{path}.{name}"] = self.why_missing(name, NOT_BOTH_ENDS)
        used = highest(self._sources["memory_used_bytes"].series, stretches)
        reserved = highest(self._counters["memory_reserved_bytes"], stretches)
        reasons[f"{path}.memory_used_peak_bytes"] = self.why_missing("memory_used_bytes", TOO_SHORT)
        reasons[f"{path}.memory_reserved_bytes"] = self.why_missing("memory_reserved_bytes", TOO_SHORT)
        throttle_s = self._throttle_s(stretches)
        reasons[f"{path}.throttle_s"] = self.why_missing("throttle_s.power_cap", NOT_BOTH_ENDS)
        reasons[f"{path}.xid_errors"] = self.why_missing("xid_errors", "XID events are not watched")
        return schema.GpuPhase(
            **fields,
            **self._energy(stretches, fields["power_w"], path, reasons),
            memory_used_peak_bytes=None if used is None else int(used),
            memory_reserved_bytes=None if reserved is None else int(reserved),
            throttle_s=throttle_s,
            xid_errors=self._xid_errors(stretches),
        )

    def _energy(
        self, stretches: Sequence[Interval], power: schema.Aggregate | None, path: str, reasons: dict[str, str]
    ) -> dict[str, Any]:
        counted_j = self._counted("energy_j", stretches)
        duration_s = sum(end_s - start_s for start_s, end_s in stretches)
        # A mean of part of the time is not stretched over the rest of it.
        whole = power is not None and power.coverage_ratio >= 0.9
        from_power_j = power.mean * duration_s if power is not None and whole else None
        reasons[f"{path}.energy_from_power_j"] = (
            self.why_missing("power_w", TOO_SHORT) if power is None else "power was read for less than 90 % of the time"
        )
        reasons[f"{path}.energy_j"] = reasons[f"{path}.energy_source"] = self.why_missing("energy_j", NOT_BOTH_ENDS)
        if counted_j is not None:
            source = self._record.status.get("energy_j", Status()).source
            return {"energy_j": counted_j, "energy_source": source, "energy_from_power_j": from_power_j}
        # Without the counter, not where it was reset: there a part of the time is known better than the whole.
        if from_power_j is not None and not len(self._counters["energy_j"].times):
            return {"energy_j": from_power_j, "energy_source": "power x time", "energy_from_power_j": from_power_j}
        return {"energy_j": None, "energy_source": None, "energy_from_power_j": from_power_j}

    def _counted(self, name: str, stretches: Sequence[Interval]) -> float | None:
        return counted(self._counters[name], stretches, max_gap_s=2 * self._options.slow_s)

    def _throttle_s(self, stretches: Sequence[Interval]) -> dict[str, float] | None:
        found = {cause: self._counted(f"throttle_s.{cause}", stretches) for cause in THROTTLE_CAUSES}
        return {cause: seconds for cause, seconds in found.items() if seconds is not None} or None

    def _xid_errors(self, stretches: Sequence[Interval]) -> list[int] | None:
        status = self._record.status.get("xid_errors", Status())
        if status.source is None:
            return None
        # It happened at some time since the look before: every stretch that this may have been in has it.
        return [
            xid
            for since_s, at_s, xid in self._xids
            if any(since_s < end_s and at_s >= start_s for start_s, end_s in stretches)
        ]

    def host(self, stretches: Sequence[Interval], path: str, reasons: dict[str, str]) -> schema.HostPhase:
        """The host's figures over ``stretches``; they are there with or without a GPU."""
        error = self._record.status.get("cpu_s", Status()).error
        reach = ReadingWindow(max_gap_s=3 * self._options.slow_s)
        for name in ("cpu_percent", "rss_peak_bytes"):
            reasons[f"{path}.{name}"] = error or TOO_SHORT
        reasons[f"{path}.main_thread_percent"] = error or f"{TOO_SHORT}, or the system does not count by thread"
        reasons[f"{path}.cgroup_throttled_s"] = error or "not read at both ends, or the cgroup counts no throttling"
        rss_bytes = highest(self._host["rss_bytes"], stretches)
        return schema.HostPhase(
            cpu_percent=aggregate(self._host["cpu_percent"], stretches, reach),
            main_thread_percent=aggregate(self._host["main_thread_percent"], stretches, reach),
            rss_peak_bytes=None if rss_bytes is None else int(rss_bytes),
            cgroup_throttled_s=counted(self._host["cgroup_throttled_s"], stretches, max_gap_s=2 * self._options.slow_s),
        )

    def capabilities(self, reasons: dict[str, str]) -> dict[str, schema.Capability]:
        """What each metric could do in this run."""
        found = {}
        for name in METRICS:
            status = self._record.status.get(name, Status())
            source = self._sources[name].source if name in self._sources else status.source
            window_s = self._sources[name].reach.window_s if name in self._sources else status.window_s
            supported = self.absent is None and status.source is not None
            error = status.error or (None if supported else self.absent or "no reading was taken")
            found[name] = schema.Capability(supported=supported, source=source, error=error, window_s=window_s or None)
            path = f"telemetry.capabilities.{name}"
            reasons[f"{path}.source"] = error or "no reading was taken"
            reasons[f"{path}.error"] = "no error"
            reasons[f"{path}.window_s"] = "an instant or a count" if supported else error or "no reading was taken"
        return found

    def columns(self) -> dict[str, Series]:
        """Every series that was recorded, by its column's name."""
        own = {name: source.series for name, source in self._sources.items()}
        counters = {name: self._counters[name] for name in ("energy_j", "memory_reserved_bytes")}
        host = {name: self._host[name] for name in ("cpu_percent", "main_thread_percent", "rss_bytes")}
        return {name: series for name, series in (own | counters | host).items() if len(series.times)}


def _percent(cpu_s: Series) -> Series:
    rate = rate_of(cpu_s, least_s=MIN_CPU_GAP_S)
    return Series(rate.times, 100 * rate.values)


def _length_s(series: Series) -> float:
    return float(series.times[-1] - series.times[0]) if len(series.times) else 0.0
