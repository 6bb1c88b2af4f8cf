"""One GPU under watch: all its readers, each at its rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jobs.telemetry.sampler.buffer import BufferReader
from jobs.telemetry.sampler.counters import CounterReader, XidReader
from jobs.telemetry.sampler.gauges import FAST, SLOW, GaugeReader
from jobs.telemetry.sampler.gpm import GpmReader
from jobs.telemetry.sampler.schedule import MIN_MARK_INTERVAL_S, Schedule
from jobs.telemetry.sampler.status import StatusBoard
from jobs.telemetry.sampler.usage_before_run import other_process_count

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import MessageWriter
    from jobs.telemetry.sampler.messages import Settings


class GpuSampler:
    """Reads a device and puts what it reads into the outbox. No reading raises."""

    def __init__(self, handle: Any, settings: Settings, outbox: MessageWriter) -> None:
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
        if now_s - self._counted_s >= MIN_MARK_INTERVAL_S:
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
        return self.schedule.account(), other_process_count(self._handle)

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
