"""The one list of telemetry metrics: name, unit, NVML source, aggregation, and how each is published.

The sampler, the aggregation, ``doctor`` and the Prometheus file are derived from it. It imports nothing large, since
the sampler's process reads it too. NVML's names are those of NVIDIA's NVML API reference.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Aggregation = Literal["mean", "peak", "delta", "events"]
"""Over a phase: time-weighted statistics, the largest reading, the growth of a counter, or the reported events."""

ReadAt = Literal["fast", "gpm", "slow", "boundary", "events", "host"]
"""When: at one of three rates; at the slow rate and at phase boundaries (counters, events); by the host's loop."""

TOO_SHORT: Final = "no reading counts in a phase this short"
NOT_POLLED: Final = "its state was not read for most of the time"
NOT_BOTH_ENDS: Final = "not read at both ends, or the counter was reset in between"


class NvmlSource(NamedTuple):
    """One way to read a metric: a field value where ``name`` is a field id, else a function of the binding.

    ``name`` is the source's name in the report, and the binding's function unless ``function`` is given. ``argument``
    names the constant that the function takes after the handle, or GPM's metric. ``member`` is the result's field.
    ``factor`` converts to the metric's unit. ``window_s`` is the averaging time of one reading, if it is an average.
    Up to the compute capability ``instant_until`` it is none.
    With ``mask`` the value is 1 if the result has any of these bits, else 0.
    """

    name: str
    function: str = ""
    argument: str = ""
    member: str = ""
    factor: float = 1.0
    window_s: float | None = None
    instant_until: tuple[int, int] | None = None
    mask: int = 0


class Metric(NamedTuple):
    """What is read, and how it is aggregated and published.

    ``name`` is also the capability's name and the column in the time series. ``unit`` is empty for a count.
    ``sources`` are in order of preference; the next is tried if the GPU or driver does not offer one. ``buffer`` is
    the ``NVML_…_SAMPLES`` type of ``nvmlDeviceGetSamples``. ``counter`` is the host's counter whose rate in percent
    this metric is. ``report_field`` is set if it is not ``name``; ``field.key`` is an entry of a dictionary.
    ``prometheus`` is the name in the Prometheus file, if any. ``reason`` is the null's reason if no error is known.
    """

    name: str
    unit: str
    aggregation: Aggregation
    read_at: ReadAt
    sources: tuple[NvmlSource, ...] = ()
    buffer: str = ""
    counter: str = ""
    report_field: str = ""
    prometheus: str = ""
    reason: str = ""

    @property
    def field(self) -> str:
        return self.report_field or self.name

    @property
    def null_reason(self) -> str:
        return self.reason or (NOT_BOTH_ENDS if self.aggregation == "delta" else TOO_SHORT)


_THROTTLED: Final = "gpu_throttled_seconds"


def _gpm(name: str, metric: str, unit: str = "%", *, factor: float = 1.0, prometheus: str = "") -> Metric:
    source = NvmlSource("GPM", argument=f"NVML_GPM_METRIC_{metric}", factor=factor)
    return Metric(name, unit, "mean", "gpm", (source,), prometheus=prometheus)


def _counter(name: str, field_id: str, unit: str = "") -> Metric:
    return Metric(name, unit, "delta", "boundary", (NvmlSource(f"NVML_FI_DEV_{field_id}"),))


def _throttle(cause: str, field_id: str) -> Metric:
    source = NvmlSource(f"NVML_FI_DEV_{field_id}", factor=1e-9)
    return Metric(f"throttle_s.{cause}", "s", "delta", "boundary", (source,), prometheus=_THROTTLED)


# The sample period is between 1/6 s and 1 s, depending on the product (nvmlUtilization_t). The longest is assumed,
# so that a reading that may include time before the phase does not count.
_UTIL: Final = NvmlSource("nvmlDeviceGetUtilizationRates", member="gpu", window_s=1.0)
# nvml.h: the instant exists on all GPUs, the average over 1 s from Ampere on, but not on GA100. nvmlDeviceGetPowerUsage
# is that average where it exists, else an instant. GA100, the chip of A100 and A30, is compute capability 8.0; the rest
# of Ampere has 8.6 and 8.7.
_POWER: Final = (
    NvmlSource("NVML_FI_DEV_POWER_INSTANT", factor=1e-3),
    NvmlSource("NVML_FI_DEV_POWER_AVERAGE", factor=1e-3, window_s=1.0),
    NvmlSource("nvmlDeviceGetPowerUsage", factor=1e-3, window_s=1.0, instant_until=(8, 0)),
)
_SM_CLOCK: Final = NvmlSource("nvmlDeviceGetClockInfo(SM)", "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM", factor=1e6)
_MEMORY_CLOCK: Final = NvmlSource("nvmlDeviceGetClockInfo(MEM)", "nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM", factor=1e6)
_TEMPERATURE: Final = tuple(
    NvmlSource(name, argument="NVML_TEMPERATURE_GPU")
    for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
)
# Version 1 counts memory reserved by the driver as used; version 2 counts it separately.
_MEMORY_V2: Final = NvmlSource("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo", "nvmlMemory_v2", "used")
_MEMORY_USED: Final = (_MEMORY_V2, NvmlSource("nvmlDeviceGetMemoryInfo", member="used"))
_ENERGY: Final = (
    NvmlSource("NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION", factor=1e-3),
    NvmlSource("nvmlDeviceGetTotalEnergyConsumption", factor=1e-3),
)

_EVENT_REASONS: Final = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")


def polled_name(metric: Metric) -> str:
    """The name of a counter's polled state."""
    return f"{metric.name}.polled"


def _polled(cause: str, mask: int) -> Metric:
    sources = tuple(NvmlSource(name, mask=mask) for name in _EVENT_REASONS)
    return Metric(f"throttle_s.{cause}.polled", "", "mean", "fast", sources)


POLLED_THROTTLING: Final = (
    _polled("power_cap", 0x04),
    _polled("sync_boost", 0x10),
    _polled("hw_slowdown", 0x08),
    _polled("sw_thermal", 0x20),
    _polled("hw_thermal", 0x40),
    _polled("hw_power_brake", 0x80),
)
"""Whether a cause lowers the clocks now, by the bits of ``nvmlClocksEventReason…`` and ``nvmlClocksThrottleReason…``.

Their share of the time replaces a counter of nanoseconds that the driver lacks, or that stands still. No driver counts
``hw_slowdown``. By nvml.h it is set with ``hw_thermal`` and ``hw_power_brake``; alone where the power draw is too high
and "Fast Trigger protection" reduces the clocks; and perhaps for a moment when the clocks change.
"""

GPU_METRICS: Final = (
    Metric("util_percent", "%", "mean", "fast", (_UTIL,), buffer="GPU_UTILIZATION", prometheus="gpu_utilization_ratio"),
    Metric(
        "memory_util_percent",
        "%",
        "mean",
        "fast",
        (_UTIL._replace(member="memory"),),
        buffer="MEMORY_UTILIZATION",
        prometheus="gpu_memory_controller_utilization_ratio",
    ),
    _gpm("graphics_util_percent", "GRAPHICS_UTIL"),
    _gpm("sm_util_percent", "SM_UTIL", prometheus="gpu_sm_utilization_ratio"),
    _gpm("sm_occupancy_percent", "SM_OCCUPANCY", prometheus="gpu_sm_occupancy_ratio"),
    _gpm("tensor_util_percent", "ANY_TENSOR_UTIL", prometheus="gpu_tensor_utilization_ratio"),
    _gpm("hmma_util_percent", "HMMA_TENSOR_UTIL"),
    _gpm("fp32_util_percent", "FP32_UTIL"),
    _gpm("dram_bandwidth_util_percent", "DRAM_BW_UTIL", prometheus="gpu_dram_bandwidth_utilization_ratio"),
    # GPM counts PCIe traffic in MiB/s.
    _gpm("pcie_tx_bytes_per_s", "PCIE_TX_PER_SEC", "B/s", factor=2.0**20),
    _gpm("pcie_rx_bytes_per_s", "PCIE_RX_PER_SEC", "B/s", factor=2.0**20),
    Metric("power_w", "W", "mean", "fast", _POWER, prometheus="gpu_power_watts"),
    Metric("sm_clock_hz", "Hz", "mean", "fast", (_SM_CLOCK,)),
    Metric("memory_clock_hz", "Hz", "mean", "fast", (_MEMORY_CLOCK,)),
    Metric("temperature_c", "°C", "mean", "slow", _TEMPERATURE),
    Metric(
        "memory_used_bytes",
        "B",
        "peak",
        "fast",
        _MEMORY_USED,
        report_field="memory_used_peak_bytes",
        prometheus="gpu_memory_used_peak_bytes",
    ),
    Metric("memory_reserved_bytes", "B", "peak", "fast", (_MEMORY_V2._replace(member="reserved"),)),
    Metric("energy_j", "J", "delta", "boundary", _ENERGY, prometheus="gpu_energy_joules"),
    _throttle("power_cap", "PERF_POLICY_POWER"),
    _throttle("thermal", "PERF_POLICY_THERMAL"),
    _throttle("sw_thermal", "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"),
    Metric("throttle_s.hw_slowdown", "s", "delta", "boundary", prometheus=_THROTTLED, reason=NOT_POLLED),
    _throttle("hw_thermal", "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN"),
    _throttle("hw_power_brake", "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN"),
    _throttle("board_limit", "PERF_POLICY_BOARD_LIMIT"),
    _throttle("reliability", "PERF_POLICY_RELIABILITY"),
    _throttle("sync_boost", "PERF_POLICY_SYNC_BOOST"),
    _counter("pcie_tx_bytes", "PCIE_COUNT_TX_BYTES", "B"),
    _counter("pcie_rx_bytes", "PCIE_COUNT_RX_BYTES", "B"),
    _counter("ecc_corrected_errors", "ECC_SBE_VOL_TOTAL"),
    _counter("ecc_uncorrected_errors", "ECC_DBE_VOL_TOTAL"),
    _counter("row_remaps_corrected", "REMAPPED_COR"),
    _counter("row_remaps_uncorrected", "REMAPPED_UNC"),
    Metric(
        "xid_errors", "", "events", "events", (NvmlSource("nvmlEventSetWait_v2"),), reason="XID events are not watched"
    ),
)
"""The GPU's metrics; each has an entry in the report's capabilities."""


def metrics_read_at(when: ReadAt) -> tuple[Metric, ...]:
    return tuple(metric for metric in GPU_METRICS if metric.read_at == when)


_NO_THREADS: Final = f"{TOO_SHORT}, or the system does not count by thread"
_NO_THROTTLING: Final = "not read at both ends, or the cgroup counts no throttling"

HOST_METRICS: Final = (
    Metric("cpu_percent", "%", "mean", "host", counter="cpu_s", prometheus="cpu_cores"),
    Metric("main_thread_percent", "%", "mean", "host", counter="main_thread_s", reason=_NO_THREADS),
    Metric("rss_bytes", "B", "peak", "host", report_field="rss_peak_bytes", prometheus="resident_memory_peak_bytes"),
    Metric("cgroup_throttled_s", "s", "delta", "host", prometheus="cgroup_throttled_seconds", reason=_NO_THROTTLING),
)
"""The metrics of the training process and its container."""
