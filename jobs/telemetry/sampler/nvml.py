"""NVML through its binding: every error becomes :class:`NvmlUnavailable`, whose text says what to do."""

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

PERMANENT: Final = frozenset(
    {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH}
)

VALUE_MEMBER: Final = {
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
    """NVML as a whole, or one of its figures, is not available."""

    def __init__(self, error: BaseException) -> None:
        self.code: int | None = getattr(error, "value", None)
        step = NEXT_STEP.get(self.code)
        super().__init__(f"{error}: {step}" if step else str(error))

    @property
    def is_permanent(self) -> bool:
        """Whether the GPU or the driver does not offer the figure, so that asking again is pointless."""
        return self.code in PERMANENT


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the binding.

    Raises:
        NvmlUnavailable: instead of whatever the binding raises.
    """
    try:
        return function(*arguments)
    except Exception as error:
        raise NvmlUnavailable(error) from error


def field_value(field: Any) -> float:
    """The value of one entry of ``nvmlDeviceGetFieldValues``.

    Raises:
        NvmlUnavailable: the entry holds an error instead.
    """
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise NvmlUnavailable(pynvml.NVMLError(field.nvmlReturn))
    member = VALUE_MEMBER.get(field.valueType)
    if member is None:
        raise NvmlUnavailable(ValueError(f"NVML value type {field.valueType} is not known"))
    return float(getattr(field.value, member))


def driver_version() -> str:
    return str(call(pynvml.nvmlSystemGetDriverVersion))


def cuda_driver_version() -> str:
    """The newest CUDA version that the driver supports; NVML gives 1000 * major + 10 * minor."""
    number = int(call(pynvml.nvmlSystemGetCudaDriverVersion))
    return f"{number // 1000}.{number % 1000 // 10}"


def uuid_of(handle: Any) -> str:
    return str(call(pynvml.nvmlDeviceGetUUID, handle))


def visible_gpus() -> list[Any]:
    """Handles of the GPUs that this process may use, in NVML's order, which is by PCI bus id.

    NVML also counts GPUs that a cgroup keeps from the process; they are left out.
    """
    handles = []
    for index in range(call(pynvml.nvmlDeviceGetCount)):
        try:
            handles.append(call(pynvml.nvmlDeviceGetHandleByIndex, index))
        except NvmlUnavailable as error:
            if error.code != pynvml.NVML_ERROR_NO_PERMISSION:
                raise
    return handles


def is_mig_enabled(gpu: Any) -> bool:
    try:
        return bool(call(pynvml.nvmlDeviceGetMigMode, gpu)[0])
    except NvmlUnavailable:
        # A GPU or driver without MIG.
        return False


def mig_devices(gpu: Any) -> Iterator[Any]:
    """Handles of the GPU's MIG devices that this process may see; any slot may be empty."""
    for index in range(call(pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu)):
        try:
            yield call(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index)
        except NvmlUnavailable:
            continue


def is_mig_device(handle: Any) -> bool:
    try:
        return bool(call(pynvml.nvmlDeviceIsMigDeviceHandle, handle))
    except NvmlUnavailable:
        return False


def gpu_and_instance(handle: Any) -> tuple[Any, int | None]:
    """The GPU that a MIG device is part of, and its GPU instance id; a GPU itself and ``None``.

    Raises:
        NvmlUnavailable: it is a MIG device, and its GPU or id is not available.
    """
    if not is_mig_device(handle):
        return handle, None
    gpu = call(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
    return gpu, int(call(pynvml.nvmlDeviceGetGpuInstanceId, handle))


def process_count(handle: Any) -> int | None:
    """Compute processes on the device; ``None`` where they may not be listed."""
    try:
        return len(call(pynvml.nvmlDeviceGetComputeRunningProcesses, handle))
    except NvmlUnavailable:
        return None
