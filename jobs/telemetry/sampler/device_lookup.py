"""Finds the job's NVML device by UUID or PCI bus id; it is never guessed if several are visible."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pynvml

from jobs.io.whole_number import whole_number
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

    A device that fails is in the list with its error, and takes nothing from the others.

    Raises:
        NvmlUnavailable: the GPUs cannot be listed.
    """
    devices = []
    for gpu in nvml.visible_gpus():
        if isinstance(gpu, NvmlUnavailable):
            devices.append(NvmlDevice(error=str(gpu)))
            continue
        mig = try_call(nvml.mig_devices, gpu) if nvml.is_mig_enabled(gpu) else []
        devices += [_device(handle) for handle in (gpu, *([] if isinstance(mig, NvmlUnavailable) else mig))]
    return devices


def _device(handle: Any) -> NvmlDevice:
    uuid, name = try_call(nvml.uuid_of, handle), try_call(pynvml.nvmlDeviceGetName, handle)
    processes = try_call(nvml.compute_processes, handle)
    used = PolledReader(handle, metrics_read_at("fast"), MessageWriter(lambda _: None)).read()
    return NvmlDevice(
        uuid=None if isinstance(uuid, NvmlUnavailable) else str(uuid),
        name=None if isinstance(name, NvmlUnavailable) else str(name),
        memory_used_bytes=used.get("memory_used_bytes"),
        util_percent=used.get("util_percent"),
        processes=None if isinstance(processes, NvmlUnavailable) else processes.users,
        error=next((str(answer) for answer in (uuid, name) if isinstance(answer, NvmlUnavailable)), None),
    )


def find(query: DeviceQuery) -> tuple[Any, str]:
    """The handle of the framework's device (a GPU or MIG device), and the method by which it was found.

    The methods in order: ``uuid``; ``pci_bus_id``; ``visible_devices_uuid``, an entry of ``CUDA_VISIBLE_DEVICES``;
    ``visible_devices_index``, used only if ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``, NVML's own order; ``only_gpu``.
    A MIG device found through its GPU adds ``+mig_uuid`` or ``+only_mig_device``. A query of the user's own names the
    device by UUID alone.

    Raises:
        NvmlUnavailable: several devices are possible, or none has the UUID that the user named.
    """
    if query.is_named_by_user:
        return _by_uuid(str(query.uuid)), "uuid"
    errors = []
    for method, look_up in _lookups(query):
        handle = try_call(look_up)
        if isinstance(handle, NvmlUnavailable):
            errors.append(f"by {method}: {handle}")
        elif handle is not None:
            return _mig_device_of(handle, method, query)
    # A GPU that fails may be the job's.
    gpus = nvml.visible_gpus()
    if len(gpus) == 1 and not isinstance(gpus[0], NvmlUnavailable):
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
    elif (index := whole_number(entry)) is not None and query.device_order == "PCI_BUS_ID":
        yield "visible_devices_index", lambda: call(pynvml.nvmlDeviceGetHandleByIndex, index)


def _visible_entry(query: DeviceQuery) -> str:
    entries = [entry.strip() for entry in (query.visible_devices or "").split(",")]
    return entries[query.index] if query.index < len(entries) else ""


def _by_uuid(uuid: str) -> Any:
    # Frameworks report a MIG device's UUID with the prefix GPU-.
    names = (uuid, f"MIG-{uuid.removeprefix('GPU-')}")
    answers = [try_call(pynvml.nvmlDeviceGetHandleByUUID, name) for name in names]
    found = (answer for answer in answers if not isinstance(answer, NvmlUnavailable))
    # The call fails if any GPU has fallen off the bus (nvml.h), so the healthy ones are then compared one by one.
    same = (handle for handle in _healthy_devices() if try_call(nvml.uuid_of, handle) in names)
    handle = next(chain(found, same), None)
    if handle is None:
        raise answers[0]
    return handle


def _healthy_devices() -> Iterator[Any]:
    for gpu in nvml.healthy_gpus():
        yield gpu
        mig = try_call(nvml.mig_devices, gpu) if nvml.is_mig_enabled(gpu) else []
        yield from [] if isinstance(mig, NvmlUnavailable) else mig


def _by_uuid_prefix(entry: str) -> Any | None:
    """The one device whose UUID starts with ``entry``, since CUDA accepts prefixes; ``None`` unless it is unique."""
    if entry.startswith("MIG-"):
        return _by_uuid(entry)
    matches = [gpu for gpu in nvml.healthy_gpus() if str(try_call(nvml.uuid_of, gpu)).startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _mig_device_of(handle: Any, method: str, query: DeviceQuery) -> tuple[Any, str]:
    """The job's MIG device if ``handle`` is a GPU with MIG enabled; any other handle unchanged."""
    if nvml.is_mig_device(handle) or not nvml.is_mig_enabled(handle):
        return handle, method
    entry = _visible_entry(query)
    if entry.startswith("MIG-"):
        return _by_uuid(entry), f"{method}+mig_uuid"
    devices = list(nvml.mig_devices(handle))
    if len(devices) == 1:
        return devices[0], f"{method}+only_mig_device"
    raise NvmlUnavailable(
        LookupError(
            f"cannot determine which of the {len(devices)} MIG devices of {nvml.uuid_of(handle)} the job uses; "
            "set CUDA_VISIBLE_DEVICES to one MIG UUID"
        )
    )


def describe_driver() -> tuple[dict[str, Any], dict[str, str]]:
    """The driver's versions, and the error of each that could not be read."""
    return _read({"driver_version": nvml.driver_version, "cuda_driver_version": nvml.cuda_driver_version})


def describe(handle: Any, method: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The device's fields of :class:`~jobs.telemetry.types.DeviceFacts`, and the error of each that was not read."""
    errors: dict[str, str] = {}
    gpu, mig_device = handle, None
    try:
        gpu, instance = nvml.gpu_and_instance(handle)
        mig_device = None if instance is None else handle
        errors["mig_uuid"] = "not a MIG device"
    except NvmlUnavailable as error:
        errors["mig_uuid"] = errors["uuid"] = str(error)
    readers: dict[str, Callable[[], Any]] = {
        "uuid": lambda: nvml.uuid_of(gpu),
        "pci_bus_id": lambda: str(call(pynvml.nvmlDeviceGetPciInfo, gpu).busId),
        "name": lambda: str(call(pynvml.nvmlDeviceGetName, handle)),
        "compute_capability": lambda: ".".join(map(str, call(pynvml.nvmlDeviceGetCudaComputeCapability, gpu))),
        "memory_total_bytes": lambda: int(call(pynvml.nvmlDeviceGetMemoryInfo, handle).total),
        "power_limit_w": lambda: enforced_power_limit_w(handle),
    }
    if mig_device is not None:
        readers["mig_uuid"] = lambda: nvml.uuid_of(mig_device)
    facts, failed = _read(readers)
    return facts | {"mapping_method": method}, errors | failed


def enforced_power_limit_w(handle: Any) -> float:
    """The limit in force.

    Raises:
        NvmlUnavailable: it cannot be read.
    """
    return float(call(pynvml.nvmlDeviceGetEnforcedPowerLimit, nvml.gpu_and_instance(handle)[0]) / 1000)


def default_power_limit_w(handle: Any) -> float | None:
    """The limit that the board boots with; ``None`` if it is not known."""
    milliwatts = try_call(lambda: pynvml.nvmlDeviceGetPowerManagementDefaultLimit(nvml.gpu_and_instance(handle)[0]))
    return None if isinstance(milliwatts, NvmlUnavailable) else milliwatts / 1000


def _read(readers: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    facts, errors = {}, {}
    for name, read in readers.items():
        answer = try_call(read)
        if isinstance(answer, NvmlUnavailable):
            errors[name] = str(answer)
        else:
            facts[name] = answer
    return facts, errors
