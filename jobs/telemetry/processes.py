"""The processes that NVML lists on a device, for ``doctor``."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import pynvml

from jobs.telemetry.sampler.device_lookup import find
from jobs.telemetry.sampler.nvml import NvmlUnavailable, call

if TYPE_CHECKING:
    from jobs.telemetry.types import DeviceQuery


def compute_process_ids(query: DeviceQuery, *, timeout_s: float = 5.0) -> frozenset[int]:
    """The ids of the compute processes on the device; the host's ids, also in a container.

    Raises:
        NvmlUnavailable: they cannot be listed, or NVML did not answer in time.
    """
    answers: list[frozenset[int] | NvmlUnavailable] = []
    # A thread, since a call into NVML may never return.
    thread = Thread(target=lambda: answers.append(_ask(query)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    answer = answers[0] if answers else NvmlUnavailable(TimeoutError(f"NVML did not answer within {timeout_s:.0f} s"))
    if isinstance(answer, NvmlUnavailable):
        raise answer
    return answer


def _ask(query: DeviceQuery) -> frozenset[int] | NvmlUnavailable:
    try:
        call(pynvml.nvmlInit)
    except NvmlUnavailable as error:
        return error
    try:
        handle, _ = find(query)
        return frozenset(int(process.pid) for process in call(pynvml.nvmlDeviceGetComputeRunningProcesses, handle))
    except NvmlUnavailable as error:
        return error
    finally:
        pynvml.nvmlShutdown()
