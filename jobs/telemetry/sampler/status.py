"""What became of each metric: whence it is read, whether it ever was, and what the last refusal said."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True)
class Status:
    """One metric's. ``error`` stays after a later success: a reading that failed is part of the run."""

    source: str | None = None
    window_s: float | None = None
    error: str | None = None


class StatusBoard:
    """All metrics' status, and which of them changed since it was last told; used by one thread."""

    def __init__(self) -> None:
        self._status: dict[str, Status] = {}
        self._changed: set[str] = set()

    def works(self, name: str, *, source: str, window_s: float | None) -> None:
        status = self._status.setdefault(name, Status())
        if (status.source, status.window_s) != (source, window_s):
            # What another way was refused for no longer matters.
            status.source, status.window_s, status.error = source, window_s, None
            self._changed.add(name)

    def failed(self, name: str, error: str) -> None:
        status = self._status.setdefault(name, Status())
        if status.error != error:
            status.error = error
            self._changed.add(name)

    def changes(self) -> dict[str, dict[str, Any]]:
        """The status of each metric that changed since the last call."""
        changed = {name: asdict(self._status[name]) for name in sorted(self._changed)}
        self._changed.clear()
        return changed
