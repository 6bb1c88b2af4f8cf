"""The process's cgroup (version 2 or 1): CPU quota, memory limit and CPU throttling."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")


def cpu_quota_cores(root: Path = ROOT) -> float | None:
    """Cores that the process may use; ``None`` without a quota."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / file).read_text() for file in files).split()
            return None if quota in {"max", "-1"} else float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Memory left of the limit; ``None`` without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(int((root / limit).read_text()) - int((root / used).read_text()), 0)
        except (OSError, ValueError):  # the other version, or "max": no limit
            continue
    return None


def cpu_stat_file(process_id: int) -> Path | None:
    """The ``cpu.stat`` that counts the process's throttling; ``None`` if there is none."""
    try:
        lines = os.fsdecode((PROC / f"{process_id}/cgroup").read_bytes()).splitlines()
    except OSError:
        return None
    paths = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    cpu_path = next((path for names, path in paths.items() if "cpu" in names.split(",")), "")
    # In a container with its own cgroup namespace, the root is the container's cgroup.
    folders = (ROOT / paths.get("", ""), ROOT, ROOT / "cpu" / cpu_path, ROOT / "cpu")
    return next((path for folder in folders if throttled_s(path := folder / "cpu.stat") is not None), None)


def throttled_s(cpu_stat: Path) -> float | None:
    """Seconds that the CPU quota throttled the cgroup's threads; ``None`` if not counted."""
    try:
        counters = dict(line.split() for line in cpu_stat.read_text().splitlines())
        if "throttled_usec" in counters:
            return int(counters["throttled_usec"]) / 1e6
        return int(counters["throttled_time"]) / 1e9
    except (OSError, ValueError, KeyError):
        return None
