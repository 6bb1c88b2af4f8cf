"""What the sampler says: rows of readings, gathered so that its reader wakes up rarely, and messages in between."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSH_S: Final = 0.5

Message = dict[str, Any]


class MessageWriter:
    """Passes messages to ``send``, one at a time, from any thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._rows: list[tuple[float, dict[str, float]]] = []
        self._flushed_s = time.monotonic()

    def row(self, at_s: float, values: dict[str, float]) -> None:
        """Add readings taken at ``at_s`` on the monotonic clock."""
        with self._lock:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            if finite:
                self._rows.append((at_s, finite))
            if self._rows and time.monotonic() - self._flushed_s >= FLUSH_S:
                self._flush()

    def say(self, kind: str, **content: Any) -> None:
        """Send a message at once, after the rows before it."""
        with self._lock:
            self._flush()
            self._send({"kind": kind, **content})

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._send({"kind": "rows", "rows": rows})
        self._flushed_s = time.monotonic()


def run_reporting_errors(run: Callable[[], None], outbox: MessageWriter) -> None:
    """Run a loop; a fault of its own is told like anything else, since telemetry never stops a training run."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - see above
        outbox.say("failed", error=f"{type(error).__name__}: {error}")
