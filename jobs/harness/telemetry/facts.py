"""What telemetry hands out: the types on both sides of its door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.report.schema import GpuPhase, HostPhase, RunWarning, Telemetry, TimeSeries


@dataclass(frozen=True, kw_only=True)
class NvmlDevice:
    name: str
    uuid: str


@dataclass(frozen=True, kw_only=True)
class NvmlStatus:
    """Whether NVML answers here, for ``doctor``; ``error`` says why not and what to do."""

    available: bool
    driver_version: str | None
    devices: tuple[NvmlDevice, ...]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The job's device as NVML knows it; ``null_reasons`` has the report path of every ``None``."""

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


@dataclass(frozen=True, kw_only=True)
class LiveReading:
    """The newest readings, for a progress line."""

    gpu_util_percent: float | None = None
    power_w: float | None = None
    memory_used_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that was observed of a run; ``gpu`` and ``host`` have one entry a phase."""

    telemetry: Telemetry
    gpu: tuple[GpuPhase | None, ...]
    host: tuple[HostPhase | None, ...]
    timeseries: TimeSeries | None
    null_reasons: dict[str, str]
    warnings: tuple[RunWarning, ...]
