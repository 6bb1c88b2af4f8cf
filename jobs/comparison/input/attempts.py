"""Attempts of one run: the last has what the earlier ones began, so it alone speaks for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.comparison.input.run_summary import RunSummary


def last_attempts(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """``runs`` in their order, without those that a later attempt of the same run went on from.

    An interrupted attempt counts as a lost run only where nobody took it up.
    """
    last: dict[str, int] = {}
    for run in runs:
        last[run.run_id] = max(run.attempt, last.get(run.run_id, 0))
    return [run for run in runs if run.attempt == last[run.run_id]]
