"""CPU time and memory of the training process and its children, and its throttling by the CPU quota."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from jobs.io.cgroup import cpu_stat_files, throttled_s
from jobs.telemetry.sampler.loop import MIN_MARK_INTERVAL_S, SamplerLoop

if TYPE_CHECKING:
    from jobs.telemetry.sampler.loop import MessageWriter
    from jobs.telemetry.types import Options

PROC: Final = Path("/proc")
CHILDREN_INTERVAL_S: Final = 10.0
"""How often children are listed, which reads the parent of every process of the machine."""


class HostLoop(SamplerLoop):
    """Reads the host at the slow rate and at each phase boundary, independently of NVML."""

    def __init__(self, options: Options, process_id: int, writer: MessageWriter) -> None:
        super().__init__(options, writer)
        self._process_id = process_id

    def sample(self) -> None:
        self.start_rates(host=self._options.slow_s)
        try:
            self._read_until_stopped(HostReader(self._process_id))
        except (psutil.Error, OSError) as error:
            self._writer.record_error("host", str(error))
        self._writer.send("host_end", rates=self.statistics())

    def _read_until_stopped(self, reader: HostReader) -> None:
        rate = self._rates["host"]
        kind, last_s = "", 0.0
        while kind != "stop":
            kind = self.next_message()["kind"]
            now_s = time.monotonic()
            due = rate.begin(now_s)
            if due or (kind != "due" and now_s - last_s >= MIN_MARK_INTERVAL_S):
                last_s = now_s
                self._writer.add_sample(now_s, reader.read())
            if due:
                rate.end(time.monotonic())


class HostReader:
    """Reads the process and its children together."""

    def __init__(self, process_id: int) -> None:
        """Raises psutil.NoSuchProcess where there is no such process."""
        self._process = psutil.Process(process_id)
        self._thread_stat = PROC / f"{process_id}/task/{process_id}/stat"
        self._cpu_stat = cpu_stat_files(process_id)
        self._children: list[psutil.Process] = []
        self._children_listed_s = -CHILDREN_INTERVAL_S

    def read(self) -> dict[str, float]:
        """Seconds of CPU used so far, by the process and by its main thread; resident bytes; seconds throttled.

        Raises:
            psutil.Error: the process is gone or may not be read.
        """
        own = self._process.cpu_times()
        # children_user and children_system are those of children that have ended.
        cpu_s = own.user + own.system + own.children_user + own.children_system
        rss_bytes = self._process.memory_info().rss
        if time.monotonic() - self._children_listed_s >= CHILDREN_INTERVAL_S:
            self._children_listed_s = time.monotonic()
            self._children = [child for child in self._process.children(recursive=True) if child.pid != os.getpid()]
        for child in self._children:
            try:
                times = child.cpu_times()
                rss_bytes += child.memory_info().rss
            except psutil.Error:
                continue
            cpu_s += times.user + times.system
        values = {"cpu_s": cpu_s, "rss_bytes": float(rss_bytes)} | self._main_thread()
        throttled = throttled_s(self._cpu_stat)
        return values if throttled is None else values | {"cgroup_throttled_s": throttled}

    def _main_thread(self) -> dict[str, float]:
        """CPU seconds of the thread that feeds the GPU; Linux only."""
        try:
            # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15 (proc(5)).
            fields = self._thread_stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return {}
        return {"main_thread_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")}
