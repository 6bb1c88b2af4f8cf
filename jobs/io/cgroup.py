"""The process's cgroup (version 2 or 1): CPU quota, memory limit and CPU throttling."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")


def cpu_quota_cores(root: Path = ROOT) -> float | None:
    """Cores that the process may use: the smallest quota of its cgroup and of those above; ``None`` without one."""
    second = (_quota_cores(folder, "cpu.max") for folder in _folders(root))
    old = _folders(root / "cpu", controller="cpu")
    first = (_quota_cores(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us") for folder in old)
    return min(filter(None, chain(second, first)), default=None)


def _quota_cores(folder: Path, *files: str) -> float | None:
    try:
        quota, period = " ".join((folder / file).read_text() for file in files).split()
        return None if quota in {"max", "-1"} else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Memory left of the smallest limit of the process's cgroup and of those above it; ``None`` without a limit."""
    second = (_left_bytes(folder, "memory.max", "memory.current") for folder in _folders(root))
    old = _folders(root / "memory", controller="memory")
    first = (_left_bytes(folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in old)
    return min((size for size in chain(second, first) if size is not None), default=None)


def _left_bytes(folder: Path, limit: str, used: str) -> int | None:
    try:
        return max(int((folder / limit).read_text()) - int((folder / used).read_text()), 0)
    except (OSError, ValueError):  # the other version, or "max": no limit
        return None


def cpu_stat_files(process_id: int) -> list[Path]:
    """The files that count the process's throttling: that of its cgroup, and those of the ones above it.

    Each counts by the quota of its own cgroup.
    """
    folders = [*_folders(ROOT, process=str(process_id)), *_folders(ROOT / "cpu", str(process_id), controller="cpu")]
    return [path for folder in folders if throttled_s([path := folder / "cpu.stat"]) is not None]


def _folders(root: Path, process: str = "self", *, controller: str = "") -> list[Path]:
    """The folders below ``root`` of the process's cgroup and of those above it, the innermost first.

    ``controller`` is one of version 1; without it they are of version 2. In a container with a cgroup namespace of its
    own ``root`` is the container's cgroup. A folder need not exist.
    """
    try:
        lines = os.fsdecode((PROC / process / "cgroup").read_bytes()).splitlines()
    except OSError:
        return [root]
    memberships = [line.split(":", 2)[1:] for line in lines]
    path = PurePosixPath(next((path for names, path in memberships if controller in names.split(",")), "/"))
    below = path.relative_to("/")
    # A process outside of the cgroup namespace's root has a path that leads up from it.
    return [root] if ".." in below.parts else [root / folder for folder in (below, *below.parents)]


def throttled_s(cpu_stat: Sequence[Path]) -> float | None:
    """Seconds that CPU quotas throttled the threads, by all these files; ``None`` if any is unreadable, or if none."""
    try:
        counts = [dict(line.split() for line in path.read_text().splitlines()) for path in cpu_stat]
        seconds = [
            int(count["throttled_usec"]) / 1e6 if "throttled_usec" in count else int(count["throttled_time"]) / 1e9
            for count in counts
        ]
    except (OSError, ValueError, KeyError):
        return None
    return sum(seconds) if seconds else None
