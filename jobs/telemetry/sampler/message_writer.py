"""Sends readings and messages: readings are gathered, so that their reader wakes up rarely."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from jobs.telemetry.types import MetricStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.telemetry.types import Message

FLUSH_S: Final = 0.5


def write_line(message: Message) -> None:
    """Write ``message`` to standard output as a line of JSON; end the process where nobody reads it any more."""
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
            if time.monotonic() - self._flushed_s >= FLUSH_S:
                self._flush()

    def record_ok(self, name: str, source: str, window_s: float | None = None) -> None:
        """The metric ``name`` was read. A new source ends the error of the source before it."""
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
