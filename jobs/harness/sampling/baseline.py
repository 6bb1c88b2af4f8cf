"""Other work on the GPU: what was there before the job touched it, and who is there at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml

from jobs.harness.sampling.facts import Baseline
from jobs.harness.sampling.gauges import FAST, GaugeReader
from jobs.harness.sampling.nvml import NvmlUnavailable, Session, call, is_split, mig_devices, uuid_of
from jobs.harness.sampling.status import StatusBoard

if TYPE_CHECKING:
    from collections.abc import Iterator


def baselines(session: Session) -> dict[str, Baseline]:
    """By UUID, for every GPU and MIG device in sight: which one the job will use is not known yet."""
    found = {}
    for handle in _all_devices(session):
        try:
            uuid = uuid_of(handle)
        except NvmlUnavailable:
            continue
        readings = GaugeReader(handle, FAST, StatusBoard()).read()
        processes = _processes(handle)
        found[uuid] = Baseline(
            memory_used_bytes=readings.get("memory_used_bytes"),
            util_percent=readings.get("util_percent"),
            processes=None if processes is None else len(processes),
        )
    return found


def foreign_processes(handle: Any) -> int | None:
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
        if is_split(gpu):
            try:
                yield from mig_devices(gpu)
            except NvmlUnavailable:
                continue
