"""Simulates gates and fleets for ``make error-rates``, in two processes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from multiprocessing import Pool
from typing import TYPE_CHECKING, Any

from measurement import ROOT, circumstances

if TYPE_CHECKING:
    from collections.abc import Iterable

SPEEDS = (1.0, 0.85)
"""Of the builds now, as a share of the baseline's."""
PROCESSES = 2


def gate_and_fleet_rates(seed: int, merges: int) -> dict[str, Any]:
    """Of ``merges`` gates and fleets of each case: the outcomes, and in how many fleets a node was named."""
    sys.path.insert(0, str(ROOT))
    from tests.support.simulated_fleets import healthy_cases, slow_cases  # noqa: PLC0415
    from tests.support.simulated_gates import CASES  # noqa: PLC0415

    measured = circumstances()
    fleet = _in_parallel(_fleet_row, ((case, seed, merges) for case in (*slow_cases(), *healthy_cases())))
    gate = _in_parallel(_gate_row, ((case, speed, seed, merges) for case in CASES for speed in SPEEDS))
    return {"measured": measured, "merges": merges, "seed": seed, "gate": gate, "fleet": fleet}


def _gate_row(task: tuple[Any, float, int, int]) -> dict[str, Any]:
    from tests.support.simulated_gates import gates  # noqa: PLC0415

    case, speed, seed, merges = task
    outcomes = {"regression": 0, "incomparable": 0, "improvement": 0, "unchanged": 0}
    return {"case": case.name, "speed": speed, **outcomes, **gates(case, speed=speed, seed=seed, count=merges)}


def _fleet_row(task: tuple[Any, int, int]) -> dict[str, Any]:
    from tests.support.simulated_fleets import fleets  # noqa: PLC0415

    case, seed, merges = task
    return {**asdict(case), **fleets(case, seed=seed, count=merges)}


def _in_parallel(function: Any, tasks: Iterable[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with Pool(PROCESSES) as pool:
        for row in pool.imap(function, tasks):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows
