"""CPU time and memory of the job's own processes, from the operating system."""

from __future__ import annotations

import psutil


class HostReader:
    """Reads this process and its children together; a child that ends between two readings is let go."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self) -> tuple[float, int]:
        """CPU seconds used so far, and resident memory in bytes."""
        own = self._process.cpu_times()
        # Children that have ended are already in the parent's account.
        cpu_s = own.user + own.system + own.children_user + own.children_system
        rss_bytes = int(self._process.memory_info().rss)
        for child in self._process.children(recursive=True):
            try:
                times = child.cpu_times()
                rss_bytes += int(child.memory_info().rss)
            except psutil.Error:
                continue
            cpu_s += times.user + times.system
        return cpu_s, rss_bytes
