"""How many CPUs this process may use, and whether others use them: what a framework's thread pool should know."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Final

import psutil

CGROUP: Final = Path("/sys/fs/cgroup")
SHARED_CPUS: Final = 0.25
"""The CPUs count as shared where other processes use more than this many of them."""


def cpu_quota_cores(root: Path = CGROUP) -> float | None:
    """Cores the cgroup lets this process use (``cpu.max``, or its version 1 pair); ``None`` where unlimited."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return float(quota) / float(period)


def usable_cpus(root: Path = CGROUP) -> int:
    """Threads that can run at once: the CPUs of this process's affinity, or fewer where a quota allows fewer."""
    cpus = len(_affinity())
    quota = cpu_quota_cores(root)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpus_used_by_others(duration_s: float = 0.2) -> float:
    """How many of the CPUs that this process may use others keep busy, measured over the next ``duration_s``."""
    mine = _own_processes()
    before_s = _busy_s() - _cpu_s(mine)
    begun_s = time.monotonic()
    time.sleep(duration_s)
    others_s = _busy_s() - _cpu_s(mine) - before_s
    return max(0.0, others_s / (time.monotonic() - begun_s))


def cpus_are_shared(root: Path = CGROUP) -> bool:
    """Whether a thread that waits in a busy loop takes CPU time from one that has work.

    It does where other processes use these CPUs, and where a quota allows less than the threads use.
    """
    quota = cpu_quota_cores(root)
    return (quota is not None and quota < usable_cpus(root)) or cpus_used_by_others() > SHARED_CPUS


def _affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(psutil.cpu_count() or 1))


def _busy_s() -> float:
    times = psutil.cpu_times(percpu=True)
    # CPUs that were taken away after the start are in the affinity still.
    present = (times[cpu] for cpu in _affinity() if cpu < len(times))
    return sum(sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0) - getattr(cpu, "guest", 0.0) for cpu in present)


def _own_processes() -> list[psutil.Process]:
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
