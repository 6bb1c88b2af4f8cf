"""The host's loop: CPU, memory and cgroup of the training process, whatever becomes of the GPU's."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

import psutil

from jobs.telemetry.sampler.host import HostReader
from jobs.telemetry.sampler.schedule import MIN_MARK_INTERVAL_S, Schedule, next_message

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import Message, MessageWriter
    from jobs.telemetry.sampler.messages import Settings


class HostLoop:
    """Reads the host at the slow rate and at every mark, until told to stop."""

    def __init__(self, settings: Settings, outbox: MessageWriter) -> None:
        self._settings = settings
        self._outbox = outbox
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def run(self) -> None:
        schedule = Schedule({"host": self._settings.slow_s})
        try:
            self._sample(HostReader(self._settings.process_id), schedule)
        except (psutil.Error, OSError) as error:
            self._outbox.say("status", status={"cpu_s": {"error": str(error)}})
        self._outbox.say("host_end", rates=schedule.account())

    def _sample(self, reader: HostReader, schedule: Schedule) -> None:
        rate = schedule.rates["host"]
        last_s = 0.0
        while True:
            message = next_message(self.inbox, schedule)
            now_s = time.monotonic()
            due = rate.begin(now_s)
            if due or (message is not None and now_s - last_s >= MIN_MARK_INTERVAL_S):
                last_s = now_s
                self._outbox.row(now_s, reader.read())
            if due:
                rate.end(time.monotonic())
            if message is not None and message["kind"] == "stop":
                return
