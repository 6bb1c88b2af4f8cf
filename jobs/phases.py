"""Records the phases of a run on one monotonic clock, so that start-up does not count as training."""

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
    """Monotonic seconds since an origin; a change of the wall clock has no effect."""

    def __init__(self, *, already_passed_s: float = 0.0) -> None:
        self._origin = time.monotonic() - already_passed_s

    @classmethod
    def since_process_start(cls) -> Clock:
        """Count from the start of the process: the interpreter's own start-up belongs to the job."""
        try:
            # The system counts a process's start from its own. psutil adds its wall clock time in whole seconds to it,
            # which the difference removes.
            start_s = psutil.Process().create_time() - psutil.boot_time()
            passed_s = time.clock_gettime(time.CLOCK_BOOTTIME) - start_s
        except (psutil.Error, OSError, AttributeError):
            return cls()
        # psutil may read the two at different times. If a change of the wall clock is between, count no start-up.
        return cls(already_passed_s=passed_s if 0 <= passed_s < 60 else 0.0)

    def __call__(self) -> float:
        return time.monotonic() - self._origin


class PhaseRecorder:
    """Records one phase after another: entering the next ends the one before, so no time is lost between.

    ``synchronize`` is called before the clock is read, so that work still queued on the device is counted in
    the phase that queued it. It may be set once a device exists. ``on_boundary`` is called after the clock was read.
    """

    def __init__(self, clock: Callable[[], float], *, on_boundary: Callable[[], None] | None = None) -> None:
        self._clock = clock
        self._on_boundary = on_boundary
        self._spans: list[Span] = []
        self._open: tuple[PhaseName, int | None, float] | None = None
        self.synchronize: Callable[[], None] | None = None

    def enter(self, name: PhaseName, *, epoch: int | None = None) -> None:
        self._open = (name, epoch, self._end_open())

    def finish(self) -> None:
        self._end_open()
        self._open = None

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(self._spans)

    def total_s(self, *names: PhaseName, epoch: int | None = None) -> float:
        """Seconds spent in phases of these names, in one epoch or in all."""
        return sum(span.duration_s for span in self._spans if span.name in names and epoch in (None, span.epoch))

    def seconds_by_name(self) -> dict[PhaseName, float]:
        names = sorted({span.name for span in self._spans})
        return {name: self.total_s(name) for name in names}

    def _end_open(self) -> float:
        if self.synchronize is not None:
            self.synchronize()
        now = self._clock()
        if self._on_boundary is not None:
            self._on_boundary()
        if self._open is not None:
            name, epoch, start_s = self._open
            self._spans.append(Span(name=name, epoch=epoch, start_s=start_s, end_s=now))
        return now
