"""NVML behind calls whose errors are texts: with the readers beside it, the only place that uses the binding.

Names and units follow NVIDIA's NVML API reference; every figure leaves this package in SI units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU must be reset before it is used again",
    pynvml.NVML_ERROR_UNKNOWN: "in a container this often means its devices were taken away: restart the container",
}

NOT_OFFERED: Final = frozenset(
    {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH}
)
"""Codes after which asking again is pointless."""

VALUE_FIELD: Final = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
"""Which member of the ``nvmlValue_t`` union holds a value of each type."""


class NvmlUnavailable(Exception):
    """NVML as a whole, or one figure of it, cannot be had; the text says why and what to do."""

    def __init__(self, error: BaseException) -> None:
        self.code: int | None = getattr(error, "value", None)
        step = NEXT_STEP.get(self.code)
        super().__init__(f"{error}: {step}" if step else str(error))

    @property
    def final(self) -> bool:
        """Whether asking again is pointless: the GPU or driver does not offer the figure."""
        return self.code in NOT_OFFERED


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the binding.

    Raises:
        NvmlUnavailable: instead of whatever the binding raises.
    """
    try:
        return function(*arguments)
    except Exception as error:
        raise NvmlUnavailable(error) from error


def text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def uuid_of(handle: Any) -> str:
    return text(call(pynvml.nvmlDeviceGetUUID, handle))


def field_value(field: Any) -> float:
    """The value that one entry of ``nvmlDeviceGetFieldValues`` holds.

    Raises:
        NvmlUnavailable: the entry holds an error instead.
    """
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise NvmlUnavailable(pynvml.NVMLError(field.nvmlReturn))
    member = VALUE_FIELD.get(field.valueType)
    if member is None:
        raise NvmlUnavailable(ValueError(f"NVML value type {field.valueType} is not known"))
    return float(getattr(field.value, member))


class Session:
    """An open NVML session of this process."""

    def __init__(self) -> None:
        """Open the session.

        Raises:
            NvmlUnavailable: there is no library, no driver, or they do not fit together.
        """
        call(pynvml.nvmlInit)

    def close(self) -> None:
        try:
            call(pynvml.nvmlShutdown)
        except NvmlUnavailable:
            return

    def driver_version(self) -> str:
        return text(call(pynvml.nvmlSystemGetDriverVersion))

    def cuda_driver_version(self) -> str:
        # 1000 * major + 10 * minor
        number = int(call(pynvml.nvmlSystemGetCudaDriverVersion))
        return f"{number // 1000}.{number % 1000 // 10}"

    def gpus(self) -> list[Any]:
        """Handles of the GPUs this process may use, in NVML's order, which is the PCI bus's.

        NVML counts those, too, that a cgroup keeps from the process; they are left out.
        """
        found = []
        for index in range(call(pynvml.nvmlDeviceGetCount)):
            try:
                found.append(call(pynvml.nvmlDeviceGetHandleByIndex, index))
            except NvmlUnavailable as error:
                if error.code != pynvml.NVML_ERROR_NO_PERMISSION:
                    raise
        return found


def is_mig_enabled(gpu: Any) -> bool:
    """Whether the GPU is split into MIG devices now; a GPU or driver that knows no MIG is not."""
    try:
        return bool(call(pynvml.nvmlDeviceGetMigMode, gpu)[0])
    except NvmlUnavailable:
        return False


def mig_devices(gpu: Any) -> Iterator[Any]:
    """Handles of the GPU's MIG devices that this process may see; slots may be empty anywhere in between."""
    for index in range(call(pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu)):
        try:
            yield call(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index)
        except NvmlUnavailable:
            continue
