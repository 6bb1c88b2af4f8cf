"""What the sampler tells of the job's device, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample. Times are seconds between two readings."""

    fast_s: float = 0.1
    """Utilization, power, clocks, memory."""
    gpm_s: float = 0.2
    """GPM, Hopper and later."""
    slow_s: float = 1.0
    """Temperature, counters, the driver's own buffer, the host."""
    process_id: int = 0
    """Of the training process, whose CPU and memory are read."""
    gpu_untouched: bool = True
    """Whether that process has not used a GPU yet, so that what is found in use is another's."""


@dataclass(frozen=True, kw_only=True)
class DeviceQuery:
    """The device to watch, as the framework names it, and the variables that decided what the framework sees."""

    uuid: str | None
    pci_bus_id: str | None
    index: int
    visible_devices: str | None
    """``CUDA_VISIBLE_DEVICES``"""
    device_order: str | None
    """``CUDA_DEVICE_ORDER``"""


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
class UsageBeforeRun:
    """What was in use on a device before the job touched it; ``None`` where that could not be read."""

    memory_used_bytes: float | None
    util_percent: float | None
    processes: int | None


def all_unknown(reason: str) -> dict[str, str]:
    """``null_reasons`` of facts of which none could be had."""
    return {"environment.driver_version": reason, "environment.cuda_driver_version": reason, "devices[]": reason}
