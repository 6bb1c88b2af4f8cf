"""How much memory is left, for the message of a job that ran out of it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

import psutil

_LIMITS: Final = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
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


def no_room_to_load(error: BaseException | None) -> bool:
    """Whether ``error`` comes of a library, or a part of one, for which the process's limit leaves no room."""
    limited = any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in _LIMITS)
    while error is not None:
        text = str(error).lower()
        # A volume from which nothing may be run has the second text, too, but no limit.
        if isinstance(error, MemoryError) or "cannot allocate memory" in text or (limited and "failed to map" in text):
            return True
        error = error.__cause__ or error.__context__
    return False
