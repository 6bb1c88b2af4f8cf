"""When to read what: absolute deadlines on the monotonic clock, and an honest account of how they were kept."""

from __future__ import annotations

import queue
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import Message

MIN_MARK_INTERVAL_S: Final = 0.02
"""Phases may end quicker than counters are worth reading."""

LATE_S: Final = 0.010
"""A reading is late from here on."""


@dataclass(kw_only=True)
class Rate:
    """One kind of reading at fixed times. A late reading does not push those after it; what it ran over is missed."""

    name: str
    interval_s: float
    deadline_s: float
    taken: int = 0
    missed: int = 0
    late: int = 0
    lateness_s: array[float] = field(default_factory=lambda: array("d"))

    def begin(self, now_s: float) -> bool:
        """Whether a reading is due; if so it counts as taken."""
        if now_s < self.deadline_s:
            return False
        lateness_s = now_s - self.deadline_s
        self.lateness_s.append(lateness_s)
        self.taken += 1
        self.late += lateness_s > LATE_S
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
        p95_s = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] if ordered else None
        return {
            "interval_s": self.interval_s,
            "planned": self.taken + self.missed,
            "taken": self.taken,
            "missed": self.missed,
            "late": self.late,
            "lateness_p95_ms": None if p95_s is None else p95_s * 1000,
        }


class Schedule:
    """Several rates that start together."""

    def __init__(self, intervals_s: dict[str, float]) -> None:
        start_s = time.monotonic()
        self.rates = {
            name: Rate(name=name, interval_s=interval_s, deadline_s=start_s) for name, interval_s in intervals_s.items()
        }

    def wait_s(self) -> float:
        """Seconds until the next deadline; 0 where one has passed."""
        return max(0.0, min(rate.deadline_s for rate in self.rates.values()) - time.monotonic())

    def account(self) -> dict[str, dict[str, Any]]:
        return {name: rate.account() for name, rate in self.rates.items()}


def next_message(inbox: queue.SimpleQueue[Message], schedule: Schedule) -> Message | None:
    """The next message, ``None`` where a deadline comes first."""
    try:
        return inbox.get(timeout=schedule.wait_s())
    except queue.Empty:
        return None
