"""Other work on the GPU: what was there before the job touched it, and who is there at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.sampler.gauges import FAST, GaugeReader
from jobs.telemetry.sampler.messages import UsageBeforeRun
from jobs.telemetry.sampler.nvml import NvmlUnavailable, Session, call, is_mig_enabled, mig_devices, uuid_of
from jobs.telemetry.sampler.status import StatusBoard

if TYPE_CHECKING:
    from collections.abc import Iterator


def baselines(session: Session) -> dict[str, UsageBeforeRun]:
    """By UUID, for every GPU and MIG device in sight: which one the job will use is not known yet."""
    found = {}
    for handle in _all_devices(session):
        try:
            uuid = uuid_of(handle)
        except NvmlUnavailable:
            continue
        readings = GaugeReader(handle, FAST, StatusBoard()).read()
        processes = _processes(handle)
        found[uuid] = UsageBeforeRun(
            memory_used_bytes=readings.get("memory_used_bytes"),
            util_percent=readings.get("util_percent"),
            processes=None if processes is None else len(processes),
        )
    return found


def other_process_count(handle: Any) -> int | None:
    """How many compute processes on the device are not the job's; ``None`` where they may not be listed.

    NVML gives the host's process numbers, which mean nothing inside a container: one is taken to be the job's.
    """
    processes = _processes(handle)
    if processes is None:
        return None
    return max(0, len(processes) - 1)


def _processes(handle: Any) -> list[int] | None:
    try:
        return [int(process.pid) for process in call(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)]
    except NvmlUnavailable:
        return None


def _all_devices(session: Session) -> Iterator[Any]:
    try:
        gpus = session.gpus()
    except NvmlUnavailable:
        return
    for gpu in gpus:
        yield gpu
        if is_mig_enabled(gpu):
            try:
                yield from mig_devices(gpu)
            except NvmlUnavailable:
                continue
