"""The CPUs that this process may use, and other processes' use of them: for the size of thread pools."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from jobs.io.cgroup import ROOT, cpu_quota_cores

if TYPE_CHECKING:
    from pathlib import Path

SHARED_CPUS: Final = 0.25
"""The CPUs are shared if other processes use more than this many of them."""


def usable_cpus(root: Path = ROOT) -> int:
    """Threads that can run at once: the CPUs of this process's affinity, or fewer where a quota allows fewer."""
    cpus = len(_affinity())
    quota = cpu_quota_cores(root)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def affinity_cores() -> int | None:
    """The number of CPUs that this process may run on; ``None`` where the operating system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cpus_used_by_others(duration_s: float = 0.2) -> float:
    """Number of this process's CPUs that other processes use, measured over the next ``duration_s``."""
    own = _own_processes()
    before_s = _busy_s() - _cpu_s(own)
    start_s = time.monotonic()
    time.sleep(duration_s)
    others_s = _busy_s() - _cpu_s(own) - before_s
    return max(0.0, others_s / (time.monotonic() - start_s))


def cpus_are_shared(root: Path = ROOT) -> bool:
    """Whether a thread that waits in a busy loop takes CPU time from a working one.

    It does if other processes use these CPUs, or if a quota allows less than the threads use.
    """
    quota = cpu_quota_cores(root)
    return (quota is not None and quota < usable_cpus(root)) or cpus_used_by_others() > SHARED_CPUS


def _affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(psutil.cpu_count() or 1))


def _busy_s() -> float:
    times = psutil.cpu_times(percpu=True)
    # The affinity still has CPUs that were removed after the start.
    present = (times[cpu] for cpu in _affinity() if cpu < len(times))
    return sum(sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0) - getattr(cpu, "guest", 0.0) for cpu in present)


def _own_processes() -> list[psutil.Process]:
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _cpu_s(processes: list[psutil.Process]) -> float:
    total_s = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
