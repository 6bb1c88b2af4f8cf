"""CPU time and memory of the training process and its children, and what the cgroup let them have."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import psutil

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
CHILDREN_S: Final = 10.0
"""How often children are looked for."""


class HostReader:
    """Reads the process and its children together, this one apart; a child that has ended is let go."""

    def __init__(self, process_id: int) -> None:
        """Raises psutil.NoSuchProcess where there is no such process."""
        self._process = psutil.Process(process_id)
        self._stat = PROC / f"{process_id}/task/{process_id}/stat"
        self._cgroup = _cgroup_stat(process_id)
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
        return found | self._throttling()

    def _main_thread_s(self) -> float | None:
        """CPU seconds of the thread that feeds the GPU; Linux only."""
        try:
            # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15 (proc(5)).
            fields = self._stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _throttling(self) -> dict[str, float]:
        if self._cgroup is None:
            return {}
        try:
            pairs = dict(line.split() for line in self._cgroup.read_text().splitlines())
            if "throttled_usec" in pairs:
                return {"cgroup_throttled_s": int(pairs["throttled_usec"]) / 1e6}
            return {"cgroup_throttled_s": int(pairs["throttled_time"]) / 1e9}
        except (OSError, ValueError, KeyError):
            return {}


def _cgroup_stat(process_id: int) -> Path | None:
    """The ``cpu.stat`` that counts the process's throttling: version 2's, else version 1's; ``None`` without one."""
    try:
        lines = (PROC / f"{process_id}/cgroup").read_text().splitlines()
    except OSError:
        return None
    paths = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    of_cpu = next((path for names, path in paths.items() if "cpu" in names.split(",")), "")
    # In a container with a cgroup namespace of its own, the root is the container's.
    candidates = [
        CGROUP_ROOT / paths.get("", "") / "cpu.stat",
        CGROUP_ROOT / "cpu.stat",
        CGROUP_ROOT / "cpu" / of_cpu / "cpu.stat",
        CGROUP_ROOT / "cpu" / "cpu.stat",
    ]
    return next((path for path in candidates if _counts_throttling(path)), None)


def _counts_throttling(path: Path) -> bool:
    try:
        return "throttled" in path.read_text()
    except OSError:
        return False
