"""The phases of a run on one monotonic clock, so that start-up is never counted as training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.report.schema import PhaseName


@dataclass(frozen=True, kw_only=True)
class Span:
    """One finished phase; seconds since the program started."""

    name: PhaseName
    epoch: int | None
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Clock:
    """Seconds since the process started, monotonic: a wall clock that jumps back changes nothing."""

    def __init__(self) -> None:
        # The interpreter was already up when this module was imported; start-up counts that time too.
        already_up_s = max(0.0, time.time() - psutil.Process().create_time())
        self._origin = time.monotonic() - min(already_up_s, 60.0)

    def __call__(self) -> float:
        return time.monotonic() - self._origin


class PhaseRecorder:
    """Records one phase after another: entering the next ends the one before, so no time is lost between.

    ``synchronize`` is called before the clock is read, so that work still queued on the device is counted in
    the phase that queued it. It may be set once a device exists.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spans: list[Span] = []
        self._open: tuple[PhaseName, int | None, float] | None = None
        self.synchronize: Callable[[], None] | None = None

    def enter(self, name: PhaseName, *, epoch: int | None = None, at_s: float | None = None) -> None:
        now = self._end_open(at_s)
        self._open = (name, epoch, now)

    def finish(self) -> None:
        self._end_open(None)
        self._open = None

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(self._spans)

    def total_s(self, *names: PhaseName, epoch: int | None = None) -> float:
        """Seconds spent in phases of these names, in one epoch or in all."""
        return sum(s.duration_s for s in self._spans if s.name in names and epoch in (None, s.epoch))

    def _end_open(self, at_s: float | None) -> float:
        if self.synchronize is not None:
            self.synchronize()
        now = self._clock() if at_s is None else at_s
        if self._open is not None:
            name, epoch, start_s = self._open
            self._spans.append(Span(name=name, epoch=epoch, start_s=start_s, end_s=now))
        return now
