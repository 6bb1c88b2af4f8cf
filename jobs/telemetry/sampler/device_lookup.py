"""Which NVML handle is the job's GPU: told by UUID or PCI bus id, never guessed when several are visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.sampler.messages import DeviceFacts
from jobs.telemetry.sampler.nvml import NvmlUnavailable, Session, call, is_mig_enabled, mig_devices, text, uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.telemetry.sampler.messages import DeviceQuery


def find(session: Session, wanted: DeviceQuery) -> tuple[Any, str]:
    """The handle of the framework's device, a MIG device's where it is one, and how it was found.

    The methods, in the order they are tried: ``uuid``; ``pci_bus_id``; ``visible_devices_uuid``, an entry of
    ``CUDA_VISIBLE_DEVICES``; ``visible_devices_index``, which means a GPU only where ``CUDA_DEVICE_ORDER`` is
    ``PCI_BUS_ID``, NVML's own order; ``only_gpu``. A MIG device found through its GPU adds ``+mig_uuid`` or
    ``+only_mig_device``.

    Raises:
        NvmlUnavailable: it cannot be told which one it is; with several visible none is guessed.
    """
    errors = []
    for method, attempt in _attempts(session, wanted):
        try:
            handle = attempt()
        except NvmlUnavailable as error:
            errors.append(f"by {method}: {error}")
            continue
        if handle is not None:
            return _slice(handle, method, wanted)
    gpus = session.gpus()
    if len(gpus) == 1:
        return _slice(gpus[0], "only_gpu", wanted)
    detail = "; ".join(errors) or "the framework names neither UUID nor PCI bus id"
    raise NvmlUnavailable(LookupError(f"which of {len(gpus)} GPUs the job uses cannot be told ({detail})"))


def _attempts(session: Session, wanted: DeviceQuery) -> list[tuple[str, Callable[[], Any]]]:
    attempts: list[tuple[str, Callable[[], Any]]] = []
    if wanted.uuid:
        uuid = wanted.uuid
        attempts.append(("uuid", lambda: _by_uuid(uuid)))
    if wanted.pci_bus_id:
        attempts.append(("pci_bus_id", lambda: call(pynvml.nvmlDeviceGetHandleByPciBusId, wanted.pci_bus_id)))
    entry = _visible_entry(wanted)
    if entry.startswith(("GPU-", "MIG-")):
        attempts.append(("visible_devices_uuid", lambda: _by_prefix(session, entry)))
    elif entry.isdecimal() and wanted.device_order == "PCI_BUS_ID":
        attempts.append(("visible_devices_index", lambda: call(pynvml.nvmlDeviceGetHandleByIndex, int(entry))))
    return attempts


def _visible_entry(wanted: DeviceQuery) -> str:
    entries = [entry.strip() for entry in (wanted.visible_devices or "").split(",")]
    return entries[wanted.index] if wanted.index < len(entries) else ""


def _by_uuid(uuid: str) -> Any:
    try:
        return call(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    except NvmlUnavailable:
        # A framework prints the bytes of a MIG device's UUID as it prints a GPU's.
        if not uuid.startswith("GPU-"):
            raise
        try:
            return call(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid.removeprefix('GPU-')}")
        except NvmlUnavailable:
            pass
        raise


def _by_prefix(session: Session, entry: str) -> Any | None:
    """The device whose UUID starts with ``entry``, as CUDA allows it to be cut short; ``None`` if not one alone."""
    if entry.startswith("MIG-"):
        return call(pynvml.nvmlDeviceGetHandleByUUID, entry)
    found = [gpu for gpu in session.gpus() if uuid_of(gpu).startswith(entry)]
    return found[0] if len(found) == 1 else None


def _slice(handle: Any, method: str, wanted: DeviceQuery) -> tuple[Any, str]:
    """The MIG device that the job has of a GPU that is split; any other handle as it is."""
    if _is_mig_device(handle) or not is_mig_enabled(handle):
        return handle, method
    entry = _visible_entry(wanted)
    if entry.startswith("MIG-"):
        return call(pynvml.nvmlDeviceGetHandleByUUID, entry), f"{method}+mig_uuid"
    slices = list(mig_devices(handle))
    if len(slices) == 1:
        return slices[0], f"{method}+only_mig_device"
    raise NvmlUnavailable(
        LookupError(
            f"which of the {len(slices)} MIG devices of {uuid_of(handle)} the job uses cannot be told; "
            "set CUDA_VISIBLE_DEVICES to one MIG UUID"
        )
    )


def _is_mig_device(handle: Any) -> bool:
    try:
        return bool(call(pynvml.nvmlDeviceIsMigDeviceHandle, handle))
    except NvmlUnavailable:
        return False


def parent_of(handle: Any) -> Any | None:
    """The GPU that a MIG device is part of; ``None`` where ``handle`` is no MIG device's.

    Raises:
        NvmlUnavailable: it is one, and its GPU cannot be had.
    """
    if not _is_mig_device(handle):
        return None
    return call(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)


def describe(session: Session, handle: Any, method: str) -> DeviceFacts:
    """What is known of a device; what is not has its reason under its path in the report."""
    reasons: dict[str, str] = {}

    def known(path: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except NvmlUnavailable as error:
            reasons[path] = str(error)
            return None

    parent = known("devices[].uuid", lambda: parent_of(handle))
    gpu = handle if parent is None else parent
    if parent is None:
        reasons["devices[].mig_uuid"] = "not a MIG device"
    return DeviceFacts(
        driver_version=known("environment.driver_version", session.driver_version),
        cuda_driver_version=known("environment.cuda_driver_version", session.cuda_driver_version),
        uuid=known("devices[].uuid", lambda: uuid_of(gpu)),
        mig_uuid=None if parent is None else known("devices[].mig_uuid", lambda: uuid_of(handle)),
        pci_bus_id=known("devices[].pci_bus_id", lambda: text(call(pynvml.nvmlDeviceGetPciInfo, gpu).busId)),
        name=known("devices[].name", lambda: text(call(pynvml.nvmlDeviceGetName, handle))),
        compute_capability=known(
            "devices[].compute_capability",
            lambda: ".".join(map(str, call(pynvml.nvmlDeviceGetCudaComputeCapability, gpu))),
        ),
        memory_total_bytes=known(
            "devices[].memory_total_bytes", lambda: int(call(pynvml.nvmlDeviceGetMemoryInfo, handle).total)
        ),
        power_limit_w=known(
            "devices[].power_limit_w", lambda: call(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000
        ),
        mapping_method=method,
        null_reasons=reasons,
    )
