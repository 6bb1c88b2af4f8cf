"""What NVML counts up: energy, throttle time, errors, PCIe bytes, and the XID events that the driver reports."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.sampler.device_lookup import parent_of
from jobs.telemetry.sampler.nvml import VALUE_FIELD, NvmlUnavailable, call, field_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobs.telemetry.sampler.status import StatusBoard


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A counter among NVML's field values; ``factor`` leads to our unit."""

    name: str
    source: str
    factor: float = 1.0

    @property
    def field(self) -> int:
        return int(getattr(pynvml, self.source))


NANOSECOND: Final = 1e-9

FIELDS: Final = (
    Counter(name="energy_j", source="NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION", factor=1e-3),
    Counter(name="throttle_s.power_cap", source="NVML_FI_DEV_PERF_POLICY_POWER", factor=NANOSECOND),
    Counter(name="throttle_s.thermal", source="NVML_FI_DEV_PERF_POLICY_THERMAL", factor=NANOSECOND),
    Counter(name="throttle_s.sync_boost", source="NVML_FI_DEV_PERF_POLICY_SYNC_BOOST", factor=NANOSECOND),
    Counter(name="throttle_s.board_limit", source="NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT", factor=NANOSECOND),
    Counter(name="throttle_s.reliability", source="NVML_FI_DEV_PERF_POLICY_RELIABILITY", factor=NANOSECOND),
    Counter(
        name="throttle_s.sw_thermal", source="NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", factor=NANOSECOND
    ),
    Counter(
        name="throttle_s.hw_thermal", source="NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN", factor=NANOSECOND
    ),
    Counter(
        name="throttle_s.hw_power_brake",
        source="NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
        factor=NANOSECOND,
    ),
    Counter(name="ecc_corrected_errors", source="NVML_FI_DEV_ECC_SBE_VOL_TOTAL"),
    Counter(name="ecc_uncorrected_errors", source="NVML_FI_DEV_ECC_DBE_VOL_TOTAL"),
    Counter(name="row_remaps_corrected", source="NVML_FI_DEV_REMAPPED_COR"),
    Counter(name="row_remaps_uncorrected", source="NVML_FI_DEV_REMAPPED_UNC"),
    Counter(name="pcie_tx_bytes", source="NVML_FI_DEV_PCIE_COUNT_TX_BYTES"),
    Counter(name="pcie_rx_bytes", source="NVML_FI_DEV_PCIE_COUNT_RX_BYTES"),
)

# Where the field is not offered: an older driver's own call for the same figure.
FALLBACKS: Final[dict[str, tuple[str, Callable[[Any], float]]]] = {
    "energy_j": (
        "nvmlDeviceGetTotalEnergyConsumption",
        lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
    ),
}

UINT32_RANGE: Final = 2.0**32

MAX_EVENTS: Final = 100
"""A GPU that reports without end must not keep the loop."""

WHOLE_GPU: Final = 0xFFFF_FFFF
"""An event's GPU instance where it is about no MIG device alone (``nvmlEventData_t``)."""


class CounterReader:
    """Reads all counters in one call; a 32-bit one that wraps goes on counting here."""

    def __init__(self, handle: Any, status: StatusBoard) -> None:
        self._handle = handle
        self._status = status
        self._fields = {counter.field: counter for counter in FIELDS}
        self._fallbacks = dict(FALLBACKS)
        self._last_raw: dict[str, float] = {}
        self._wrapped: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """The counters that can be had now, by name, in our units."""
        found: dict[str, float] = {}
        if self._fields:
            try:
                answers = call(pynvml.nvmlDeviceGetFieldValues, self._handle, list(self._fields))
            except NvmlUnavailable as error:
                self._fail(list(self._fields), error)
            else:
                for answer in answers:
                    self._take(answer, found)
        for name, (source, read) in list(self._fallbacks.items()):
            if name not in found and not any(counter.name == name for counter in self._fields.values()):
                self._fall_back(name, source, read, found)
        return found

    def _take(self, answer: Any, found: dict[str, float]) -> None:
        counter = self._fields.get(answer.fieldId)
        if counter is None:
            return
        try:
            raw = field_value(answer)
        except NvmlUnavailable as error:
            self._fail([counter.field], error)
            return
        if VALUE_FIELD[answer.valueType] == "uiVal":
            raw = self._unwrapped(counter.name, raw)
        found[counter.name] = raw * counter.factor
        self._status.works(counter.name, source=counter.source, window_s=None)

    def _unwrapped(self, name: str, raw: float) -> float:
        # A fall from the lower half is a reset, which stays a fall: what was counted before is lost.
        if raw < self._last_raw.get(name, 0.0) and self._last_raw[name] > UINT32_RANGE / 2:
            self._wrapped[name] = self._wrapped.get(name, 0.0) + UINT32_RANGE
        self._last_raw[name] = raw
        return raw + self._wrapped.get(name, 0.0)

    def _fall_back(self, name: str, source: str, read: Callable[[Any], float], found: dict[str, float]) -> None:
        try:
            found[name] = call(read, self._handle)
        except NvmlUnavailable as error:
            self._status.failed(name, str(error))
            if error.final:
                del self._fallbacks[name]
            return
        self._status.works(name, source=source, window_s=None)

    def _fail(self, fields: Iterable[int], error: NvmlUnavailable) -> None:
        for field in fields:
            self._status.failed(self._fields[field].name, str(error))
            if error.final:
                del self._fields[field]


class XidReader:
    """The driver's reports of critical errors on the GPU, or on one MIG device of it, as they come in."""

    def __init__(self, handle: Any, status: StatusBoard) -> None:
        self._status = status
        self._events: Any = None
        self._instance: int | None = None
        try:
            # Events are the whole GPU's, and say which MIG device they are about.
            gpu = parent_of(handle)
            if gpu is not None:
                self._instance = int(call(pynvml.nvmlDeviceGetGpuInstanceId, handle))
            events = call(pynvml.nvmlEventSetCreate)
            call(pynvml.nvmlDeviceRegisterEvents, gpu or handle, pynvml.nvmlEventTypeXidCriticalError, events)
        except NvmlUnavailable as error:
            status.failed("xid_errors", str(error))
            return
        self._events = events
        status.works("xid_errors", source="nvmlEventSetWait_v2", window_s=None)

    def read(self) -> list[int]:
        """XID numbers since the last call; waits for none."""
        found: list[int] = []
        while self._events is not None:
            try:
                event = call(pynvml.nvmlEventSetWait_v2, self._events, 0)
            except NvmlUnavailable as error:
                # The usual answer: nothing happened.
                if error.code != pynvml.NVML_ERROR_TIMEOUT:
                    self._status.failed("xid_errors", str(error))
                    self._events = None if error.final else self._events
                break
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError and self._is_ours(event.gpuInstanceId):
                found.append(int(event.eventData))
            if len(found) >= MAX_EVENTS:
                break
        return found

    def _is_ours(self, instance: int) -> bool:
        return self._instance is None or instance in {self._instance, WHOLE_GPU}

    def close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(NvmlUnavailable):
                call(pynvml.nvmlEventSetFree, self._events)
        self._events = None
