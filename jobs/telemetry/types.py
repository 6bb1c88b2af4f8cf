"""What telemetry takes and hands out: the types on both sides of its door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs.telemetry.sampler.messages import DeviceFacts, Settings

if TYPE_CHECKING:
    from jobs.report.schema import (
        Capability,
        GpuPhase,
        HostPhase,
        RunWarning,
        Telemetry,
        TimeSeries,
        TrainingSummary,
        Validity,
    )

__all__ = ["DeviceFacts", "LiveReading", "NvmlDevice", "NvmlStatus", "Observation", "Options"]

Mode = Literal["process", "thread", "off"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to watch; the intervals are seconds between two readings of a kind."""

    mode: Mode = "process"
    fast_s: float = Settings.fast_s
    gpm_s: float = Settings.gpm_s
    slow_s: float = Settings.slow_s


@dataclass(frozen=True, kw_only=True)
class NvmlDevice:
    name: str
    uuid: str


@dataclass(frozen=True, kw_only=True)
class NvmlStatus:
    """What NVML offers here, for ``doctor``; ``error`` says why it does not and what to do."""

    available: bool
    driver_version: str | None
    devices: tuple[NvmlDevice, ...]
    error: str | None
    capabilities: dict[str, Capability]
    """Of the one device that was asked about; empty without one."""


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
    training: TrainingSummary | None
    validity: Validity
    timeseries: TimeSeries | None
    null_reasons: dict[str, str]
    warnings: tuple[RunWarning, ...]
