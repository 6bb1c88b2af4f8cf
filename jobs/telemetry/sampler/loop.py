"""The base of the sampler's loops: sampling rates with absolute deadlines, an inbox, and a message writer."""

from __future__ import annotations

import json
import math
import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING, Any, Final

from jobs.telemetry.types import MetricStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.telemetry.types import Message, Options

MIN_MARK_INTERVAL_S: Final = 0.02
"""Counters are read at most this often at phase boundaries."""

LATE_THRESHOLD_S: Final = 0.010
"""A reading that starts later than this after its deadline counts as late."""

FLUSH_INTERVAL_S: Final = 0.5
"""Readings are sent in batches this far apart, so that the receiving thread rarely wakes up."""


def write_line(message: Message) -> None:
    """Write ``message`` to standard output as a line of JSON; end the process if its reader has closed it."""
    try:
        sys.stdout.write(json.dumps(message, separators=(",", ":"), allow_nan=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)


class MessageWriter:
    """Passes messages to ``send``, one at a time, from any thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._status: dict[str, MetricStatus] = {}
        self._changed: dict[str, MetricStatus] = {}
        self._flushed_s = time.monotonic()

    def add_sample(self, at_s: float, values: dict[str, float]) -> None:
        """Add readings taken at ``at_s`` on the monotonic clock."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._lock:
            if finite:
                self._samples.append((at_s, finite))
            if time.monotonic() - self._flushed_s >= FLUSH_INTERVAL_S:
                self._flush()

    def record_ok(self, name: str, source: str, window_s: float | None = None) -> None:
        """Record that the metric ``name`` was read. A new source clears the previous source's error."""
        status = self._status.get(name)
        if status is None or status[:2] != (source, window_s):
            self._set(name, MetricStatus(source, window_s))

    def record_error(self, name: str, error: str) -> None:
        status = self._status.get(name, MetricStatus())
        if status.error != error:
            self._set(name, status._replace(error=error))

    def _set(self, name: str, status: MetricStatus) -> None:
        with self._lock:
            self._status[name] = self._changed[name] = status

    def send(self, kind: str, **content: Any) -> None:
        """Send a message at once, after all readings before it."""
        with self._lock:
            self._flush()
            self._send({"kind": kind, **content})

    def _flush(self) -> None:
        samples, self._samples = self._samples, []
        changed, self._changed = self._changed, {}
        if samples or changed:
            self._send({"kind": "samples", "samples": samples, "status": changed})
        self._flushed_s = time.monotonic()


class Rate:
    """Absolute deadlines of one kind of reading. A late reading does not delay later ones; skipped ones are counted."""

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

    def statistics(self) -> dict[str, Any]:
        """Readings planned, taken, missed and late, and the 95th percentile of their lateness."""
        ordered = sorted(self.lateness_s)
        taken = len(ordered)
        return {
            "interval_s": self.interval_s,
            "planned": taken + self.missed,
            "taken": taken,
            "missed": self.missed,
            "late": sum(lateness_s > LATE_THRESHOLD_S for lateness_s in ordered),
            "lateness_p95_ms": 1000 * ordered[min(taken - 1, int(0.95 * taken))] if taken else None,
        }


class SamplerLoop(threading.Thread, ABC):
    """A loop as a daemon thread, which does not keep the process alive if NVML hangs."""

    def __init__(self, options: Options, writer: MessageWriter) -> None:
        super().__init__(name="telemetry", daemon=True)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.cpu_s = 0.0
        """CPU time of the loop, once it has ended."""
        self._options = options
        self._writer = writer
        self._rates: dict[str, Rate] = {}

    def run(self) -> None:
        self.run_reported(self.sample)
        self.cpu_s = time.thread_time()

    def run_reported(self, function: Callable[[], None]) -> None:
        """Call ``function``; an error of it is sent, and training continues."""
        try:
            function()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._writer.send("failed", error=f"{type(error).__name__}: {error}")

    @abstractmethod
    def sample(self) -> None:
        """Read until a ``stop`` message."""

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

    def statistics(self) -> dict[str, dict[str, Any]]:
        return {name: rate.statistics() for name, rate in self._rates.items()}


def stop_loops(loops: Sequence[SamplerLoop], timeout_s: float) -> bool:
    """Tell the loops to stop; whether all have ended within ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    for loop in loops:
        loop.inbox.put({"kind": "stop"})
    for loop in loops:
        loop.join(max(0.0, deadline_s - time.monotonic()))
    return not any(loop.is_alive() for loop in loops)
