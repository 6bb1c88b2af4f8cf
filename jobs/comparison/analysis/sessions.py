"""Splits runs into sessions: what ran on one day, without a long pause."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jobs.comparison.input.run_summary import RunSummary

    Sessions = dict[datetime, datetime]
    """When the session began, by a run's start."""

PAUSE: Final = timedelta(hours=4)
"""A pause this long between two starts begins a new session."""

LENGTH: Final = timedelta(hours=24)
"""A session is at most this long."""


def find_sessions(runs: Iterable[RunSummary]) -> Sessions:
    """The sessions of all runs of a merge, so that runs of one day are in one session in every table."""
    sessions: Sessions = {}
    begin = previous = None
    for start in sorted({run.started_at_utc for run in runs}):
        if begin is None or previous is None or start - previous >= PAUSE or start - begin >= LENGTH:
            begin = start
        sessions[start] = begin
        previous = start
    return sessions
