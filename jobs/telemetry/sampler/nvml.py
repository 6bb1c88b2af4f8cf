"""Calls NVML: every error becomes :class:`NvmlUnavailable`, whose text says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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

    def __init__(self, error: BaseException, *, is_permanent: bool = False) -> None:
        self.code: int | None = getattr(error, "value", None)
        self.is_permanent = is_permanent or self.code in PERMANENT
        """Whether the GPU or the driver does not offer the value, so that it is not read again."""
        step = NEXT_STEP.get(self.code)
        super().__init__(f"{error}: {step}" if step else str(error))


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


SLOWDOWN_FIELDS: Final = tuple(
    f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{cause}_SLOWDOWN" for cause in ("SW_THERM", "HW_THERM", "HW_POWER_BRAKE")
)
"""Counters whose field ids NVIDIA changed; the binding has those of its own release only."""


def field_id(name: str) -> int:
    """The field id of ``name`` in the library that is loaded.

    nvml.h of CUDA 12.9 and 13.0.39 gives :data:`SLOWDOWN_FIELDS` the ids 251 to 253. That of 13.0.87 and later gives
    them 269 to 271, and 251 to power smoothing, as 12.8 had it. nvidia-ml-py changed them from release 13.580.65 to
    13.580.82. So the ids of the drivers between these two are not known.

    Raises:
        NvmlUnavailable: neither the binding nor, for :data:`SLOWDOWN_FIELDS`, this driver has the field.
    """
    if name not in SLOWDOWN_FIELDS:
        return int(call(getattr, pynvml, name))
    text = str(call(pynvml.nvmlSystemGetNVMLVersion))
    # As 13.580.65.06: the API's version, then the driver's.
    numbers = tuple(int(part) for part in text.split(".")[1:3] if part.isdecimal())
    if (575,) <= numbers < (580, 66):
        first = 251
    elif numbers >= (580, 82):
        first = 269
    else:
        error = LookupError(f"it is not known how NVML {text} counts this cause")
        raise NvmlUnavailable(error, is_permanent=True)
    return first + SLOWDOWN_FIELDS.index(name)


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

    In place of a GPU that fails, as one that has fallen off the bus, is its error. NVML also counts GPUs that a cgroup
    keeps from the process; they are left out.
    """
    answers = [try_call(pynvml.nvmlDeviceGetHandleByIndex, index) for index in range(call(pynvml.nvmlDeviceGetCount))]
    return [answer for answer in answers if getattr(answer, "code", None) != pynvml.NVML_ERROR_NO_PERMISSION]


def healthy_gpus() -> list[Any]:
    """As :func:`visible_gpus`, without those that fail."""
    return [gpu for gpu in visible_gpus() if not isinstance(gpu, NvmlUnavailable)]


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


HOST_PID_NAMESPACE: Final = 0xEFFF_FFFC
"""The inode of the host's own PID namespace (PROC_PID_INIT_INO in Linux's proc_ns.h)."""


def in_host_pid_namespace() -> bool:
    """Whether this process knows the processes of the whole machine, and not only those of a container."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == HOST_PID_NAMESPACE
    except OSError:
        return False


class ComputeProcesses(NamedTuple):
    """The processes with a compute context on a device."""

    ids: frozenset[int]
    mps_servers: int
    """How many of them are servers of NVIDIA's Multi-Process Service (MPS), which work for their clients only."""

    @property
    def users(self) -> int:
        return len(self.ids) - self.mps_servers

    def others_than(self, job: int) -> tuple[int, bool]:
        """How many others than the process ``job`` use the device, and whether those of all containers are counted.

        In a container, older drivers list the ids of the host; one of them is taken for the job. Newer drivers list
        only the container's own processes, by its ids (pull request 614 of NVIDIA/open-gpu-kernel-modules).
        """
        is_listed = job in self.ids
        if in_host_pid_namespace():
            return self.users - is_listed, True
        return max(0, self.users - 1), bool(self.ids) and not is_listed


MPS_SERVER: Final = "nvidia-cuda-mps-server"


def compute_processes(handle: Any) -> ComputeProcesses:
    """The compute processes on the device, those that share it by MPS among them.

    The server of MPS is known by its name. A container does not know the names of the host's processes. There it is
    one that is not in NVML's list of MPS processes, if that list has any: these have a server.

    Raises:
        NvmlUnavailable: they may not be listed.
    """
    contexts = {int(process.pid) for process in call(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)}
    # Where it fails, as on a GPU before Volta, the first list has all.
    answer = try_call(pynvml.nvmlDeviceGetMPSComputeRunningProcesses, handle)
    clients = set() if isinstance(answer, NvmlUnavailable) else {int(process.pid) for process in answer}
    without_mps = contexts - clients
    servers = sum(MPS_SERVER in str(try_call(pynvml.nvmlSystemGetProcessName, pid)) for pid in without_mps)
    if not servers and clients and without_mps:
        servers = 1
    return ComputeProcesses(frozenset(contexts | clients), servers)
