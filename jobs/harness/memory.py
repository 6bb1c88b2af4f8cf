"""How much memory is left, for the message of a job that ran out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

CGROUP: Final = Path("/sys/fs/cgroup")


def free_bytes(cgroup: Path = CGROUP) -> int:
    """Host memory this process could still get: the machine's, or what its cgroup (v2 or v1) leaves."""
    free = [int(psutil.virtual_memory().available)]
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for limit, used in pairs:
        try:
            free.append(max(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()), 0))
        except (OSError, ValueError):
            # Not this version of cgroups, or "max": no limit.
            continue
    return min(free)


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
