"""What NVML can be asked at any moment, each figure by the best way this GPU and driver offer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.sampler.nvml import NvmlUnavailable, call, field_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobs.telemetry.sampler.status import StatusBoard


@dataclass(frozen=True, kw_only=True)
class NvmlSource:
    """One way to read a gauge; ``window_s`` is the time a reading stands for, ``None`` for an instant."""

    source: str
    window_s: float | None
    read: Callable[[Any], Sequence[float]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Figures that come from one call, and the ways to get them, the best first."""

    names: tuple[str, ...]
    ways: tuple[NvmlSource, ...]


def _utilization(handle: Any) -> tuple[float, float]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return float(rates.gpu), float(rates.memory)


def _instant_power(handle: Any) -> tuple[float]:
    (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    return (field_value(field) / 1000,)


def _memory_v2(handle: Any) -> tuple[float, float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    return float(memory.used), float(memory.reserved)


FAST: Final = (
    # "The sample period may be between 1 second and 1/6 second depending on the product" (nvmlUtilization_t): the
    # longest is taken, so that no reading is counted that could have seen what was before.
    Gauge(
        names=("util_percent", "memory_util_percent"),
        ways=(NvmlSource(source="nvmlDeviceGetUtilizationRates", window_s=1.0, read=_utilization),),
    ),
    # nvmlDeviceGetPowerUsage is an average over 1 s from Ampere on (GA100 apart), says its reference.
    Gauge(
        names=("power_w",),
        ways=(
            NvmlSource(source="NVML_FI_DEV_POWER_INSTANT", window_s=None, read=_instant_power),
            NvmlSource(
                source="nvmlDeviceGetPowerUsage",
                window_s=1.0,
                read=lambda handle: (pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,),
            ),
        ),
    ),
    Gauge(
        names=("sm_clock_hz",),
        ways=(
            NvmlSource(
                source="nvmlDeviceGetClockInfo(SM)",
                window_s=None,
                read=lambda handle: (pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * 1e6,),
            ),
        ),
    ),
    Gauge(
        names=("memory_clock_hz",),
        ways=(
            NvmlSource(
                source="nvmlDeviceGetClockInfo(MEM)",
                window_s=None,
                read=lambda handle: (pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) * 1e6,),
            ),
        ),
    ),
    # Version 2 tells what the driver itself reserves apart; version 1 counts it as used.
    Gauge(
        names=("memory_used_bytes", "memory_reserved_bytes"),
        ways=(
            NvmlSource(source="nvmlDeviceGetMemoryInfo_v2", window_s=None, read=_memory_v2),
            NvmlSource(
                source="nvmlDeviceGetMemoryInfo",
                window_s=None,
                read=lambda handle: (float(pynvml.nvmlDeviceGetMemoryInfo(handle).used),),
            ),
        ),
    ),
)

SLOW: Final = (
    Gauge(
        names=("temperature_c",),
        ways=(
            NvmlSource(
                source="nvmlDeviceGetTemperatureV",
                window_s=None,
                read=lambda handle: (float(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)),),
            ),
            NvmlSource(
                source="nvmlDeviceGetTemperature",
                window_s=None,
                read=lambda handle: (float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),),
            ),
        ),
    ),
)


class GaugeReader:
    """Reads gauges; one that fails takes no other along, and is asked again unless the GPU does not offer it."""

    def __init__(self, handle: Any, gauges: Iterable[Gauge], status: StatusBoard) -> None:
        self._handle = handle
        self._status = status
        self._ways = {gauge: list(gauge.ways) for gauge in gauges}

    def read(self) -> dict[str, float]:
        """The figures that can be had now, by name."""
        found: dict[str, float] = {}
        for gauge, ways in self._ways.items():
            while ways:
                way = ways[0]
                try:
                    values = call(way.read, self._handle)
                except NvmlUnavailable as error:
                    for name in gauge.names:
                        self._status.failed(name, str(error))
                    if not error.final:
                        break
                    # The next best way; the last error stands where there is none.
                    ways.pop(0)
                    continue
                for name, value in zip(gauge.names, values, strict=False):
                    found[name] = value
                    self._status.works(name, source=way.source, window_s=way.window_s)
                break
        return found
