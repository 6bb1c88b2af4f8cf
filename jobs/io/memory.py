"""Free memory, and whether an error means that there is too little."""

from __future__ import annotations

import resource

import psutil

from jobs.io.cgroup import free_memory_bytes


def free_bytes() -> int:
    """Host memory that this process can still allocate: the machine's, or what is left of its cgroup's limit."""
    available = int(psutil.virtual_memory().available)
    limit = free_memory_bytes()
    return available if limit is None else min(available, limit)


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def no_room_to_load(error: BaseException | None) -> bool:
    """Whether ``error`` means that a library could not be loaded within the process's memory limit."""
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    limited = any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
    while error is not None:
        text = str(error).lower()
        # Without a limit, "failed to map" means that the volume forbids execution.
        if isinstance(error, MemoryError) or "cannot allocate memory" in text or (limited and "failed to map" in text):
            return True
        error = error.__cause__ or error.__context__
    return False
