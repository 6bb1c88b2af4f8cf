"""A loop that reads at fixed rates and takes orders in between; deadlines are absolute, on the monotonic clock."""

from __future__ import annotations

import queue
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.telemetry.sampler.message_writer import MessageWriter
    from jobs.telemetry.types import Message, Options

MIN_MARK_INTERVAL_S: Final = 0.02
"""Counters are read at most this often at phase boundaries."""

LATE_S: Final = 0.010
"""A reading is late from here on."""


class Rate:
    """One kind of reading at fixed times. A late reading does not delay later ones; times that pass are missed."""

    def __init__(self, interval_s: float, deadline_s: float) -> None:
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self.missed = 0
        self.lateness_s: array[float] = array("d")

    def begin(self, now_s: float) -> bool:
        """Whether a reading is due; if so it counts as taken."""
        if now_s < self.deadline_s:
            return False
        self.lateness_s.append(now_s - self.deadline_s)
        return True

    def end(self, now_s: float) -> None:
        """Set the next deadline, after a reading."""
        self.deadline_s += self.interval_s
        skipped = max(0, int((now_s - self.deadline_s) / self.interval_s))
        self.missed += skipped
        self.deadline_s += skipped * self.interval_s

    def account(self) -> dict[str, Any]:
        """Readings planned, taken, missed and late, and the 95th percentile of their lateness."""
        ordered = sorted(self.lateness_s)
        taken = len(ordered)
        return {
            "interval_s": self.interval_s,
            "planned": taken + self.missed,
            "taken": taken,
            "missed": self.missed,
            "late": sum(lateness_s > LATE_S for lateness_s in ordered),
            "lateness_p95_ms": 1000 * ordered[min(taken - 1, int(0.95 * taken))] if taken else None,
        }


class SamplerLoop(threading.Thread):
    """A loop as a daemon thread: one that hangs in NVML does not keep its process."""

    def __init__(self, options: Options, writer: MessageWriter) -> None:
        super().__init__(name="telemetry", daemon=True)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.cpu_s = 0.0
        """CPU time of the loop, once it has ended."""
        self._options = options
        self._writer = writer
        self._rates: dict[str, Rate] = {}

    def run(self) -> None:
        try:
            self.sample()
        except Exception as error:  # noqa: BLE001 - a fault of the sampler is reported, and training goes on
            self._writer.send("failed", error=f"{type(error).__name__}: {error}")
        self.cpu_s = time.thread_time()

    def sample(self) -> None:
        """Read until told to stop."""
        raise NotImplementedError

    def start_rates(self, **intervals_s: float) -> None:
        now_s = time.monotonic()
        self._rates = {name: Rate(interval_s, now_s) for name, interval_s in intervals_s.items()}

    def next_message(self) -> Message:
        """The next message; of the kind ``due`` where a deadline comes first."""
        if not self._rates:
            return self.inbox.get()
        wait_s = min(rate.deadline_s for rate in self._rates.values()) - time.monotonic()
        try:
            return self.inbox.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            return {"kind": "due"}

    def account(self) -> dict[str, dict[str, Any]]:
        return {name: rate.account() for name, rate in self._rates.items()}


def stop_loops(loops: Sequence[SamplerLoop], timeout_s: float) -> bool:
    """Tell the loops to stop; whether all have ended within ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    for loop in loops:
        loop.inbox.put({"kind": "stop"})
    for loop in loops:
        loop.join(max(0.0, deadline_s - time.monotonic()))
    return not any(loop.is_alive() for loop in loops)
