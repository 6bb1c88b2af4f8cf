"""The driver's own buffer of utilization samples: gap-free and finer than what polling sees, where it works."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.sampler.nvml import NvmlUnavailable, call

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.telemetry.sampler.status import StatusBoard

SERIES: Final = {
    "util_percent.buffered": pynvml.NVML_GPU_UTILIZATION_SAMPLES,
    "memory_util_percent.buffered": pynvml.NVML_MEMORY_UTILIZATION_SAMPLES,
}

CLOCK_TOLERANCE_S: Final = 30.0
"""The buffer's newest sample is at most this far from the right clock's now; clocks differ by far more."""

NO_NEWS: Final = frozenset({pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_NO_DATA})


def _clocks() -> list[Callable[[], float]]:
    """What a driver may stamp its samples with: the time of day, or the time since boot."""
    clocks: list[Callable[[], float]] = [time.time]
    if hasattr(time, "CLOCK_BOOTTIME"):
        clocks.append(lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    return [*clocks, time.monotonic]


class BufferReader:
    """New samples of the driver's buffer, on the monotonic clock."""

    def __init__(self, handle: Any, status: StatusBoard) -> None:
        self._handle = handle
        self._status = status
        self._last_seen = dict.fromkeys(SERIES, 0)
        self._spacing_s: dict[str, float] = {}
        self._offered = set(SERIES)
        self._begun_s = time.monotonic()

    def read(self) -> list[tuple[float, str, float]]:
        """(seconds on the monotonic clock, metric, value) of each new sample, in order of time."""
        found: list[tuple[float, str, float]] = []
        for name in sorted(self._offered):
            try:
                found += self._series(name)
            except NvmlUnavailable as error:
                if error.code in NO_NEWS:
                    continue
                self._status.failed(name, str(error))
                if error.final:
                    self._offered.discard(name)
        return sorted(found)

    def _series(self, name: str) -> list[tuple[float, str, float]]:
        _, samples = call(pynvml.nvmlDeviceGetSamples, self._handle, SERIES[name], self._last_seen[name])
        fresh = sorted((s.timeStamp, s.sampleValue.uiVal) for s in samples if s.timeStamp > self._last_seen[name])
        if not fresh:
            return []
        # What the buffer held before this began is another's, but the last of it opens the first gap.
        self._last_seen[name] = fresh[-1][0]
        behind_s = _clock_offset_s(fresh[-1][0] / 1e6)
        if behind_s is None:
            self._status.failed(name, f"the buffer's clock is not known (it shows {fresh[-1][0]} µs)")
            return []
        spacing_s = self._spacing_s.get(name) or _spacing_s([stamp for stamp, _ in fresh])
        if spacing_s is not None:
            self._spacing_s[name] = spacing_s
        self._status.works(name, source="nvmlDeviceGetSamples", window_s=spacing_s)
        rows = [(stamp / 1e6 + behind_s, name, float(value)) for stamp, value in fresh]
        return [row for row in rows if row[0] >= self._begun_s - 1.0]


def _clock_offset_s(newest_s: float) -> float | None:
    """What to add to the buffer's clock to get the monotonic one; ``None`` where no clock fits."""
    for clock in _clocks():
        now_s = clock()
        if abs(now_s - newest_s) <= CLOCK_TOLERANCE_S:
            return time.monotonic() - now_s
    return None


def _spacing_s(stamps: list[int]) -> float | None:
    gaps = sorted(later - earlier for earlier, later in pairwise(stamps))
    return round(gaps[len(gaps) // 2] / 1e6, 4) if gaps else None
