"""Free memory of the host."""

from __future__ import annotations

import psutil

from jobs.io.cgroup import free_memory_bytes


def free_bytes() -> int:
    """Host memory that this process can still allocate: the machine's, or what is left of its cgroup's limit."""
    available = int(psutil.virtual_memory().available)
    limit = free_memory_bytes()
    return available if limit is None else min(available, limit)


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
