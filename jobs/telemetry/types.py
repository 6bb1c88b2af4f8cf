"""Types that telemetry shares with its callers and with the sampler's process, which imports nothing large."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jobs.choices import TelemetryMode
    from jobs.report import schema

Message = dict[str, Any]
"""A message to or from the sampler, one line of JSON: ``kind`` and the content of that kind."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to sample: ``fast_s`` are the seconds between two readings of utilization, power, clocks and memory.

    ``gpm_s`` are those of GPM, and ``slow_s`` those of temperature, counters, the driver's buffer and the host.
    """

    mode: TelemetryMode = "process"
    fast_s: float = 0.1
    gpm_s: float = 0.2
    slow_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DeviceQuery:
    """What the framework reports of its device, with ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``."""

    uuid: str | None
    pci_bus_id: str | None
    index: int
    visible_devices: str | None
    device_order: str | None


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The job's device as NVML describes it; ``null_reasons`` has the report path of every ``None``."""

    driver_version: str | None = None
    cuda_driver_version: str | None = None
    uuid: str | None = None
    mig_uuid: str | None = None
    pci_bus_id: str | None = None
    name: str | None = None
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
    power_limit_w: float | None = None
    mapping_method: str | None = None
    null_reasons: dict[str, str] = field(default_factory=dict)


class MetricStatus(NamedTuple):
    """How one metric is read; ``error`` is the last that occurred, and stays when the next reading succeeds."""

    source: str | None = None
    window_s: float | None = None
    error: str | None = None


class NvmlDevice(NamedTuple):
    """A GPU or MIG device and its use at the start; ``None`` if that could not be read."""

    uuid: str
    name: str
    memory_used_bytes: float | None
    util_percent: float | None
    processes: int | None


@dataclass(frozen=True, kw_only=True)
class NvmlStatus:
    """NVML's status for ``doctor``; ``error`` says why it is not available and what to do."""

    available: bool
    driver_version: str | None
    devices: tuple[NvmlDevice, ...]
    error: str | None
    capabilities: dict[str, schema.Capability]
    """Of the requested device; empty without one."""


@dataclass(frozen=True, kw_only=True)
class LiveReading:
    """The newest readings, for a progress line."""

    gpu_util_percent: float | None = None
    power_w: float | None = None
    memory_used_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A run's telemetry; ``gpu`` and ``host`` have one entry per phase."""

    telemetry: schema.Telemetry
    gpu: tuple[schema.GpuPhase | None, ...]
    host: tuple[schema.HostPhase | None, ...]
    training: schema.TrainingSummary | None
    validity: schema.Validity
    timeseries: schema.TimeSeries | None
    null_reasons: dict[str, str]
    warnings: tuple[schema.RunWarning, ...]
