"""Splits runs into sessions: what ran on one day, without a long pause."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jobs.comparison.input.run_summary import RunSummary

PAUSE: Final = timedelta(hours=4)
"""A pause this long between two starts begins a new session."""

LENGTH: Final = timedelta(hours=24)
"""A session is at most this long."""


class Sessions:
    """Sessions of all runs of a merge, so that runs of the same day are in the same session whoever asks."""

    def __init__(self, runs: Iterable[RunSummary]) -> None:
        self._begin: dict[datetime, datetime] = {}
        begin = previous = None
        for start in sorted({run.started_at_utc for run in runs}):
            if begin is None or previous is None or start - previous >= PAUSE or start - begin >= LENGTH:
                begin = start
            self._begin[start] = begin
            previous = start

    def of(self, run: RunSummary) -> datetime:
        """When the session of ``run`` began."""
        return self._begin[run.started_at_utc]
