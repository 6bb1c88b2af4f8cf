"""Calls NVML: every error becomes :class:`NvmlUnavailable`, whose text says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable

NEXT_STEP: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver here; on a GPU machine start the container with --gpus all",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the NVIDIA driver on the host",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "driver and library differ, as after an upgrade: reload the driver or restart the node"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not read it",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this GPU does not offer it",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the driver is too old to offer it",
    pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU is no longer on the PCI bus: drain the node and reset it",
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU must be reset before it is used again",
    pynvml.NVML_ERROR_UNKNOWN: "in a container this often means its devices were taken away: restart the container",
}

PERMANENT: Final = frozenset(
    {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH}
)

VALUE_MEMBERS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of the ``nvmlValue_t`` union by ``nvmlValueType_t``, which counts from 0."""


class NvmlUnavailable(Exception):
    """NVML or one of its values is not available."""

    def __init__(self, error: BaseException) -> None:
        self.code: int | None = getattr(error, "value", None)
        step = NEXT_STEP.get(self.code)
        super().__init__(f"{error}: {step}" if step else str(error))

    @property
    def is_permanent(self) -> bool:
        """Whether the GPU or the driver does not offer the value, so that it is not read again."""
        return self.code in PERMANENT


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the binding.

    Raises:
        NvmlUnavailable: the binding raised any exception.
    """
    try:
        return function(*arguments)
    except NvmlUnavailable:
        raise
    except Exception as error:
        raise NvmlUnavailable(error) from error


def try_call(function: Callable[..., Any], *arguments: Any) -> Any:
    """As :func:`call`, but return the error."""
    try:
        return call(function, *arguments)
    except NvmlUnavailable as error:
        return error


def field_value(field: Any) -> tuple[float, bool]:
    """The value of one entry of ``nvmlDeviceGetFieldValues``, and whether it has only 32 bits.

    Raises:
        NVMLError: the entry holds an error instead.
        IndexError: its type is not known.
    """
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    if field.valueType >= len(VALUE_MEMBERS):
        raise IndexError(f"NVML value type {field.valueType} is not known")
    member = VALUE_MEMBERS[field.valueType]
    return float(getattr(field.value, member)), member == "uiVal"


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
        handle = try_call(pynvml.nvmlDeviceGetHandleByIndex, index)
        if not isinstance(handle, NvmlUnavailable):
            handles.append(handle)
        elif handle.code != pynvml.NVML_ERROR_NO_PERMISSION:
            raise handle
    return handles


def is_mig_enabled(gpu: Any) -> bool:
    mode = try_call(pynvml.nvmlDeviceGetMigMode, gpu)
    # A GPU or driver without MIG gives an error.
    return not isinstance(mode, NvmlUnavailable) and bool(mode[0])


def mig_devices(gpu: Any) -> list[Any]:
    """Handles of the GPU's MIG devices that this process may see; any slot may be empty."""
    slots = range(call(pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu))
    handles = [try_call(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index) for index in slots]
    return [handle for handle in handles if not isinstance(handle, NvmlUnavailable)]


def is_mig_device(handle: Any) -> bool:
    answer = try_call(pynvml.nvmlDeviceIsMigDeviceHandle, handle)
    return not isinstance(answer, NvmlUnavailable) and bool(answer)


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
    processes = try_call(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if isinstance(processes, NvmlUnavailable) else len(processes)
