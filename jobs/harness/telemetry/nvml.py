"""NVML behind typed calls whose errors are texts: the only place that imports the binding.

Names and units follow NVIDIA's NVML API reference; every figure leaves here in SI units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.harness.telemetry.facts import DeviceFacts, NvmlDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.harness.device import FrameworkDevice

NEXT_STEP: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver here; on a GPU machine start the container with --gpus all",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the NVIDIA driver on the host",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "driver and library differ, as after an upgrade: reload the driver or restart the node"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not read it",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this GPU does not offer it",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the driver is too old to offer it",
    pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU fell off the bus: drain the node and reset it",
    pynvml.NVML_ERROR_UNKNOWN: "in a container this often means its devices were taken away: restart the container",
}


class NvmlUnavailable(Exception):
    """NVML as a whole, or one figure of it, cannot be had; the text says why and what to do."""

    def __init__(self, error: BaseException) -> None:
        self.code = getattr(error, "value", None)
        step = NEXT_STEP.get(self.code)
        super().__init__(f"{error}: {step}" if step else str(error))

    @property
    def final(self) -> bool:
        """Whether asking again is pointless: the GPU or driver does not offer the figure."""
        return self.code in {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (pynvml.NVMLError, OSError, ValueError, AttributeError) as error:
        raise NvmlUnavailable(error) from error


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of a device: where it comes from and how it is read."""

    name: str
    unit: str
    source: str
    window_s: float | None
    """Time one reading stands for; ``None`` for an instantaneous or a counted one."""
    read: Callable[[Any], float] = field(repr=False)


def _memory_used_bytes(handle: Any) -> float:
    try:
        # Version 2 leaves out what the driver itself reserves.
        return float(pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


METRICS: Final = (
    # "The sample period may be between 1 second and 1/6 second depending on the product" (nvmlUtilization_t).
    Metric(
        name="util_percent",
        unit="%",
        source="nvmlDeviceGetUtilizationRates.gpu",
        window_s=1.0,
        read=lambda handle: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
    ),
    Metric(
        name="memory_util_percent",
        unit="%",
        source="nvmlDeviceGetUtilizationRates.memory",
        window_s=1.0,
        read=lambda handle: float(pynvml.nvmlDeviceGetUtilizationRates(handle).memory),
    ),
    Metric(
        name="power_w",
        unit="W",
        source="nvmlDeviceGetPowerUsage",
        window_s=None,
        read=lambda handle: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    ),
    Metric(
        name="memory_used_bytes",
        unit="B",
        source="nvmlDeviceGetMemoryInfo",
        window_s=None,
        read=_memory_used_bytes,
    ),
    Metric(
        name="energy_j",
        unit="J",
        source="nvmlDeviceGetTotalEnergyConsumption",
        window_s=None,
        read=lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
    ),
)


def read_metric(metric: Metric, handle: Any) -> float:
    """One reading, in the metric's unit.

    Raises:
        NvmlUnavailable: it cannot be had now, or (``final``) ever.
    """
    return float(_call(metric.read, handle))


class Nvml:
    """An open NVML session."""

    def __init__(self) -> None:
        """Open the session.

        Raises:
            NvmlUnavailable: there is no library, no driver, or they do not fit together.
        """
        _call(pynvml.nvmlInit)

    def close(self) -> None:
        try:
            _call(pynvml.nvmlShutdown)
        except NvmlUnavailable:
            return

    def driver_version(self) -> str:
        return _text(_call(pynvml.nvmlSystemGetDriverVersion))

    def cuda_driver_version(self) -> str:
        # 1000 * major + 10 * minor
        number = int(_call(pynvml.nvmlSystemGetCudaDriverVersion))
        return f"{number // 1000}.{number % 1000 // 10}"

    def devices(self) -> tuple[NvmlDevice, ...]:
        handles = [_call(pynvml.nvmlDeviceGetHandleByIndex, index) for index in range(_call(pynvml.nvmlDeviceGetCount))]
        return tuple(
            NvmlDevice(name=_text(_call(pynvml.nvmlDeviceGetName, h)), uuid=_text(_call(pynvml.nvmlDeviceGetUUID, h)))
            for h in handles
        )

    def find(self, device: FrameworkDevice) -> tuple[Any, str]:
        """The handle of the framework's device, and how it was found.

        Raises:
            NvmlUnavailable: it cannot be told which one it is; with several visible none is guessed.
        """
        attempts: list[tuple[str, Callable[[], Any]]] = []
        if device.uuid:
            attempts.append(("uuid", lambda: _call(pynvml.nvmlDeviceGetHandleByUUID, device.uuid)))
        if device.pci_bus_id:
            attempts.append(("pci_bus_id", lambda: _call(pynvml.nvmlDeviceGetHandleByPciBusId, device.pci_bus_id)))
        errors = []
        for method, attempt in attempts:
            try:
                return attempt(), method
            except NvmlUnavailable as error:
                errors.append(f"by {method}: {error}")
        count = int(_call(pynvml.nvmlDeviceGetCount))
        if count == 1:
            return _call(pynvml.nvmlDeviceGetHandleByIndex, 0), "only_gpu"
        detail = "; ".join(errors) or "the framework names neither UUID nor PCI bus id"
        raise NvmlUnavailable(LookupError(f"which of {count} GPUs the job uses cannot be told ({detail})"))

    def facts(self, handle: Any, method: str) -> DeviceFacts:
        """What is known of a device; what is not has its reason under its path in the report."""
        reasons: dict[str, str] = {"devices[].mig_uuid": "not a MIG device"}

        def known(path: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except NvmlUnavailable as error:
                reasons[path] = str(error)
                return None

        return DeviceFacts(
            driver_version=known("environment.driver_version", self.driver_version),
            cuda_driver_version=known("environment.cuda_driver_version", self.cuda_driver_version),
            uuid=known("devices[].uuid", lambda: _text(_call(pynvml.nvmlDeviceGetUUID, handle))),
            mig_uuid=None,
            pci_bus_id=known("devices[].pci_bus_id", lambda: _text(_call(pynvml.nvmlDeviceGetPciInfo, handle).busId)),
            name=known("devices[].name", lambda: _text(_call(pynvml.nvmlDeviceGetName, handle))),
            compute_capability=known(
                "devices[].compute_capability",
                lambda: ".".join(map(str, _call(pynvml.nvmlDeviceGetCudaComputeCapability, handle))),
            ),
            memory_total_bytes=known(
                "devices[].memory_total_bytes", lambda: int(_call(pynvml.nvmlDeviceGetMemoryInfo, handle).total)
            ),
            power_limit_w=known(
                "devices[].power_limit_w", lambda: _call(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle) / 1000
            ),
            mapping_method=method,
            null_reasons=reasons,
        )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
