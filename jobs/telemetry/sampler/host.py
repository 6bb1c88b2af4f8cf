"""CPU time and memory of the training process and its children, and what the cgroup let them have."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import psutil

from jobs.io.cgroup import cpu_stat_file, throttled_s

PROC: Final = Path("/proc")
CHILDREN_S: Final = 10.0
"""How often children are looked for."""


class HostReader:
    """Reads the process and its children together, this one apart; a child that has ended is let go."""

    def __init__(self, process_id: int) -> None:
        """Raises psutil.NoSuchProcess where there is no such process."""
        self._process = psutil.Process(process_id)
        self._stat = PROC / f"{process_id}/task/{process_id}/stat"
        self._cpu_stat = cpu_stat_file(process_id)
        self._children: list[psutil.Process] = []
        self._listed_s = -CHILDREN_S

    def read(self) -> dict[str, float]:
        """Seconds of CPU used so far, resident bytes, seconds the cgroup held it back.

        Raises:
            psutil.Error: the process is gone or may not be read.
        """
        own = self._process.cpu_times()
        # Children that have ended are already in the parent's account.
        cpu_s = own.user + own.system + own.children_user + own.children_system
        rss_bytes = self._process.memory_info().rss
        if time.monotonic() - self._listed_s >= CHILDREN_S:
            # Finding them reads every process's parent: too much for each time on a busy node.
            self._listed_s = time.monotonic()
            self._children = [child for child in self._process.children(recursive=True) if child.pid != os.getpid()]
        for child in self._children:
            try:
                times = child.cpu_times()
                rss_bytes += child.memory_info().rss
            except psutil.Error:
                continue
            cpu_s += times.user + times.system
        found = {"cpu_s": cpu_s, "rss_bytes": float(rss_bytes)}
        main_thread_s = self._main_thread_s()
        if main_thread_s is not None:
            found["main_thread_s"] = main_thread_s
        throttled = throttled_s(self._cpu_stat) if self._cpu_stat is not None else None
        if throttled is not None:
            found["cgroup_throttled_s"] = throttled
        return found

    def _main_thread_s(self) -> float | None:
        """CPU seconds of the thread that feeds the GPU; Linux only."""
        try:
            # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15 (proc(5)).
            fields = self._stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
