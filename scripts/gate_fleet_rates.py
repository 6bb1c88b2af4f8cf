"""Simulates gates and fleets for ``make error-rates``, in two processes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from multiprocessing import Pool
from typing import TYPE_CHECKING, Any

from measurement import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPEEDS = (1.0, 0.85)
"""Of the builds now, as a share of the baseline's."""
PROCESSES = 2


def gate_rates(seeds: Sequence[int], merges: int) -> list[dict[str, Any]]:
    """Outcomes of ``merges`` gates for each case, speed and seed."""
    sys.path.insert(0, str(ROOT))
    from tests.support.simulated_gates import CASES  # noqa: PLC0415

    return _in_parallel(_gate_row, ((case, speed, seeds, merges) for case in CASES for speed in SPEEDS))


def fleet_rates(seeds: Sequence[int], merges: int) -> list[dict[str, Any]]:
    """In how many of ``merges`` fleets of each case and seed a node was named."""
    sys.path.insert(0, str(ROOT))
    from tests.support.simulated_fleets import healthy_cases, slow_cases  # noqa: PLC0415

    return _in_parallel(_fleet_row, ((case, seeds, merges) for case in (*slow_cases(), *healthy_cases())))


def _gate_row(task: tuple[Any, float, Sequence[int], int]) -> dict[str, Any]:
    from tests.support.simulated_gates import gates  # noqa: PLC0415

    case, speed, seeds, merges = task
    outcomes = [gates(case, speed=speed, seed=seed, count=merges) for seed in seeds]
    return {"case": case.name, "speed": speed, "outcomes": outcomes}


def _fleet_row(task: tuple[Any, Sequence[int], int]) -> dict[str, Any]:
    from tests.support.simulated_fleets import fleets  # noqa: PLC0415

    case, seeds, merges = task
    return {**asdict(case), "counts": [fleets(case, seed=seed, count=merges) for seed in seeds]}


def _in_parallel(function: Any, tasks: Iterable[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with Pool(PROCESSES) as pool:
        for row in pool.imap(function, tasks):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows
