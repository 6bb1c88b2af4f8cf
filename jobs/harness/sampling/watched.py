"""One GPU under watch: all its readers, each at its rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jobs.harness.sampling.baseline import foreign_processes
from jobs.harness.sampling.buffer import BufferReader
from jobs.harness.sampling.counters import CounterReader, XidReader
from jobs.harness.sampling.gauges import FAST, SLOW, GaugeReader
from jobs.harness.sampling.gpm import GpmReader
from jobs.harness.sampling.schedule import MARKS_APART_S, Schedule
from jobs.harness.sampling.status import StatusBoard

if TYPE_CHECKING:
    from jobs.harness.sampling.facts import Settings
    from jobs.harness.sampling.outbox import Outbox


class WatchedDevice:
    """Reads a device and puts what it reads into the outbox. No reading raises."""

    def __init__(self, handle: Any, settings: Settings, outbox: Outbox) -> None:
        self._handle = handle
        self._outbox = outbox
        self._status = status = StatusBoard()
        self._fast = GaugeReader(handle, FAST, status)
        self._slow = GaugeReader(handle, SLOW, status)
        self._gpm = GpmReader(handle, settings.gpm_s, status)
        self._counters = CounterReader(handle, status)
        self._counted_s = 0.0
        self._xids = XidReader(handle, status)
        self._looked_s = time.monotonic()
        self._buffer = BufferReader(handle, status)
        self.schedule = Schedule({"fast": settings.fast_s, "gpm": settings.gpm_s, "slow": settings.slow_s})

    def read_due(self) -> None:
        # Each is dated by itself: a slow call of one must not date the readings of another.
        for name, read in (("fast", self._fast.read), ("gpm", self._gpm.read), ("slow", self._read_slow)):
            rate = self.schedule.rates[name]
            now_s = time.monotonic()
            if rate.begin(now_s):
                self._outbox.row(now_s, read())
                rate.end(time.monotonic())

    def read_counters(self) -> None:
        """At the ends of phases, so that each phase has its own count; critical errors too."""
        now_s = time.monotonic()
        if now_s - self._counted_s >= MARKS_APART_S:
            self._counted_s = now_s
            self._outbox.row(now_s, self._counters.read())
            self._read_xids()

    def say_changes(self) -> None:
        changes = self._status.changes()
        if changes:
            self._outbox.say("status", status=changes)

    def finish(self) -> tuple[dict[str, dict[str, Any]], int | None]:
        """Read once more what counts up; the account of the rates, and the number of other processes."""
        self.read_counters()
        self._read_xids()
        self._read_buffer()
        self._gpm.close()
        self._xids.close()
        self.say_changes()
        return self.schedule.account(), foreign_processes(self._handle)

    def _read_slow(self) -> dict[str, float]:
        self.read_counters()
        self._read_buffer()
        return self._slow.read()

    def _read_buffer(self) -> None:
        for at_s, name, value in self._buffer.read():
            self._outbox.row(at_s, {name: value})

    def _read_xids(self) -> None:
        since_s, self._looked_s = self._looked_s, time.monotonic()
        xids = self._xids.read()
        if xids:
            self._outbox.say("xids", since_s=since_s, at_s=time.monotonic(), xids=xids)
