"""Finds the job's NVML device by UUID or PCI bus id; it is never guessed if several are visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.metrics import metrics_read_at
from jobs.telemetry.sampler import nvml
from jobs.telemetry.sampler.gpu import PolledReader
from jobs.telemetry.sampler.loop import MessageWriter
from jobs.telemetry.sampler.nvml import NvmlUnavailable, call, try_call
from jobs.telemetry.types import NvmlDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.telemetry.types import DeviceQuery


def inventory() -> list[NvmlDevice]:
    """Every visible GPU and MIG device and its current use; the job's own is not known yet.

    Raises:
        NvmlUnavailable: the GPUs cannot be listed.
    """
    devices = []
    for gpu in nvml.visible_gpus():
        mig = try_call(nvml.mig_devices, gpu) if nvml.is_mig_enabled(gpu) else []
        for handle in (gpu, *([] if isinstance(mig, NvmlUnavailable) else mig)):
            uuid, name = try_call(nvml.uuid_of, handle), try_call(pynvml.nvmlDeviceGetName, handle)
            if isinstance(uuid, str) and isinstance(name, str):
                used = PolledReader(handle, metrics_read_at("fast"), MessageWriter(lambda _: None)).read()
                memory, util = used.get("memory_used_bytes"), used.get("util_percent")
                devices.append(NvmlDevice(uuid, name, memory, util, nvml.process_count(handle)))
    return devices


def find(query: DeviceQuery) -> tuple[Any, str]:
    """The handle of the framework's device (a GPU or MIG device), and the method by which it was found.

    The methods in order: ``uuid``; ``pci_bus_id``; ``visible_devices_uuid``, an entry of ``CUDA_VISIBLE_DEVICES``;
    ``visible_devices_index``, used only if ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``, NVML's own order; ``only_gpu``.
    A MIG device found through its GPU adds ``+mig_uuid`` or ``+only_mig_device``.

    Raises:
        NvmlUnavailable: several devices are possible.
    """
    errors = []
    for method, look_up in _lookups(query):
        handle = try_call(look_up)
        if isinstance(handle, NvmlUnavailable):
            errors.append(f"by {method}: {handle}")
        elif handle is not None:
            return _mig_device_of(handle, method, query)
    gpus = nvml.visible_gpus()
    if len(gpus) == 1:
        return _mig_device_of(gpus[0], "only_gpu", query)
    detail = "; ".join(errors) or "the framework reports neither UUID nor PCI bus id"
    raise NvmlUnavailable(
        LookupError(
            f"cannot determine which of {len(gpus)} GPUs the job uses ({detail}); "
            "set CUDA_VISIBLE_DEVICES to one GPU's UUID"
        )
    )


def _lookups(query: DeviceQuery) -> Iterator[tuple[str, Callable[[], Any]]]:
    if query.uuid:
        uuid = query.uuid
        yield "uuid", lambda: _by_uuid(uuid)
    if query.pci_bus_id:
        yield "pci_bus_id", lambda: call(pynvml.nvmlDeviceGetHandleByPciBusId, query.pci_bus_id)
    entry = _visible_entry(query)
    if entry.startswith(("GPU-", "MIG-")):
        yield "visible_devices_uuid", lambda: _by_uuid_prefix(entry)
    elif entry.isdecimal() and query.device_order == "PCI_BUS_ID":
        yield "visible_devices_index", lambda: call(pynvml.nvmlDeviceGetHandleByIndex, int(entry))


def _visible_entry(query: DeviceQuery) -> str:
    entries = [entry.strip() for entry in (query.visible_devices or "").split(",")]
    return entries[query.index] if query.index < len(entries) else ""


def _by_uuid(uuid: str) -> Any:
    handle = try_call(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    if isinstance(handle, NvmlUnavailable):
        # Frameworks report a MIG device's UUID with the prefix GPU-.
        mig_handle = try_call(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid.removeprefix('GPU-')}")
        if isinstance(mig_handle, NvmlUnavailable):
            raise handle
        return mig_handle
    return handle


def _by_uuid_prefix(entry: str) -> Any | None:
    """The one device whose UUID starts with ``entry``, since CUDA accepts prefixes; ``None`` unless it is unique."""
    if entry.startswith("MIG-"):
        return call(pynvml.nvmlDeviceGetHandleByUUID, entry)
    matches = [gpu for gpu in nvml.visible_gpus() if nvml.uuid_of(gpu).startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _mig_device_of(handle: Any, method: str, query: DeviceQuery) -> tuple[Any, str]:
    """The job's MIG device if ``handle`` is a GPU with MIG enabled; any other handle unchanged."""
    if nvml.is_mig_device(handle) or not nvml.is_mig_enabled(handle):
        return handle, method
    entry = _visible_entry(query)
    if entry.startswith("MIG-"):
        return call(pynvml.nvmlDeviceGetHandleByUUID, entry), f"{method}+mig_uuid"
    devices = list(nvml.mig_devices(handle))
    if len(devices) == 1:
        return devices[0], f"{method}+only_mig_device"
    raise NvmlUnavailable(
        LookupError(
            f"cannot determine which of the {len(devices)} MIG devices of {nvml.uuid_of(handle)} the job uses; "
            "set CUDA_VISIBLE_DEVICES to one MIG UUID"
        )
    )


def describe(handle: Any, method: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of :class:`~jobs.telemetry.types.DeviceFacts`, and the error of each that could not be read."""
    facts: dict[str, Any] = {"mapping_method": method}
    errors: dict[str, str] = {}
    gpu, mig_device = handle, None
    try:
        gpu, instance = nvml.gpu_and_instance(handle)
        mig_device = None if instance is None else handle
        errors["mig_uuid"] = "not a MIG device"
    except NvmlUnavailable as error:
        errors["mig_uuid"] = errors["uuid"] = str(error)
    readers: dict[str, Callable[[], Any]] = {
        "driver_version": nvml.driver_version,
        "cuda_driver_version": nvml.cuda_driver_version,
        "uuid": lambda: nvml.uuid_of(gpu),
        "pci_bus_id": lambda: str(call(pynvml.nvmlDeviceGetPciInfo, gpu).busId),
        "name": lambda: str(call(pynvml.nvmlDeviceGetName, handle)),
        "compute_capability": lambda: ".".join(map(str, call(pynvml.nvmlDeviceGetCudaComputeCapability, gpu))),
        "memory_total_bytes": lambda: int(call(pynvml.nvmlDeviceGetMemoryInfo, handle).total),
        "power_limit_w": lambda: call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000,
    }
    if mig_device is not None:
        readers["mig_uuid"] = lambda: nvml.uuid_of(mig_device)
    for name, read in readers.items():
        answer = try_call(read)
        if isinstance(answer, NvmlUnavailable):
            errors[name] = str(answer)
        else:
            facts[name] = answer
    return facts, errors
