"""All ranks of a run, as one of them sees them: they agree on small things, such as where the next stop is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobs.choices import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_INTERVAL_S: Final = 0.25
"""Time between two stops, at which a signal to any rank ends all of them."""
MAX_STRIDE: Final = 1024


class Exchange(Protocol):
    """Sends a small JSON value to all ranks; the result has every rank's, by rank."""

    def __call__(self, part: Any, /) -> list[Any]: ...


class RankGroup:
    """The ranks of one run. Each calls the same methods in the same order.

    A group of one rank needs no connection: it is the group of ``--reduction exact`` without ``--ranks``.
    """

    def __init__(
        self,
        *,
        rank: int = 0,
        size: int = 1,
        exchange: Exchange | None = None,
        pending_signal: Callable[[], int | None] = lambda: None,
        interrupt: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``interrupt`` raises what ends the run for a signal's number."""
        self.rank = rank
        self.size = size
        self._exchange: Exchange = exchange or (lambda part: [part])
        self._pending_signal = pending_signal
        self._interrupt = interrupt
        self._stride = 1
        self._last_stop: tuple[int, float] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0

    @property
    def shards(self) -> range:
        """The shards of a global batch that this rank computes; all have as many where the size divides 8."""
        return range(SHARDS * self.rank // self.size, SHARDS * (self.rank + 1) // self.size)

    def exchange(self, part: Any) -> list[Any]:
        """Every rank's ``part``, a small JSON value, by rank. Waits for all.

        Raises:
            PeerLost: a rank is gone.
        """
        return self._exchange(part)

    def start_epoch(self) -> None:
        """Forget the time since the last stop: something else was done in between."""
        self._last_stop = None

    def next_stop(self, step: int, end: int) -> int:
        """The step, at most ``end``, up to which all ranks train before they meet again; ``step`` steps are done.

        All ranks call it after the same steps. Rank 0's clock decides the distance.

        Raises:
            Interrupted: a rank received a signal.
            PeerLost: a rank is gone.
        """
        now = time.monotonic()
        if self._last_stop is not None:
            last_step, last_s = self._last_stop
            if step > last_step and now - last_s < STOP_INTERVAL_S:
                self._stride = min(2 * self._stride, MAX_STRIDE)
            elif now - last_s > 2 * STOP_INTERVAL_S:
                self._stride = max(self._stride // 2, 1)
        parts = self.exchange({"step": step, "stride": self._stride, "signal": self._pending_signal()})
        steps = {part["step"] for part in parts}
        assert len(steps) == 1, f"all ranks stop at the same step, not at {sorted(steps)}"
        signals = [part["signal"] for part in parts if part["signal"] is not None]
        if signals:
            self._interrupt(signals[0])
        self._stride = parts[0]["stride"]
        self._last_stop = step, now
        return min(step + self._stride, end)
