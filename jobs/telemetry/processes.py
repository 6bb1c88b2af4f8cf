"""The processes that NVML lists on a device, for ``doctor``."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import pynvml

from jobs.telemetry.sampler.device_lookup import find
from jobs.telemetry.sampler.nvml import ComputeProcesses, NvmlUnavailable, call, compute_processes

if TYPE_CHECKING:
    from jobs.telemetry.types import DeviceQuery


def processes_on(query: DeviceQuery, *, timeout_s: float = 5.0) -> ComputeProcesses:
    """The compute processes on the device.

    Raises:
        NvmlUnavailable: they cannot be listed, or NVML did not answer in time.
    """
    answers: list[ComputeProcesses | NvmlUnavailable] = []
    # A thread, since a call into NVML may never return.
    thread = Thread(target=lambda: answers.append(_ask(query)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    answer = answers[0] if answers else NvmlUnavailable(TimeoutError(f"NVML did not answer within {timeout_s:.0f} s"))
    if isinstance(answer, NvmlUnavailable):
        raise answer
    return answer


def _ask(query: DeviceQuery) -> ComputeProcesses | NvmlUnavailable:
    try:
        call(pynvml.nvmlInit)
    except NvmlUnavailable as error:
        return error
    try:
        handle, _ = find(query)
        return compute_processes(handle)
    except NvmlUnavailable as error:
        return error
    finally:
        pynvml.nvmlShutdown()
