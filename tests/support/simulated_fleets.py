"""Fleets of simulated nodes whose truth is known: how often a healthy one has a node named, and a slow node is found.

Each node runs once. If the comparison asks for a second pass, its nodes run five times more, and all runs are compared
again, until it asks for none. A node counts as named when the comparison calls it slow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.comparison.analysis.fleet import RUNS_AGAIN, by_node, second_pass
from jobs.comparison.input.run_summary import ReportLocation, summarize
from tests.support.reports import STARTED, make_report
from tests.support.simulated_runs import with_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jobs.comparison.input.run_summary import RunSummary

RUN_NOISE: Final = 0.005
SLOW: Final = 0.85
"""Speed of the slow node, as a share of what it would have."""

SPREADS: Final = {5: (0.0, 0.03, 0.08), 16: (0.0, 0.03, 0.08), 64: (0.0, 0.03, 0.08), 1000: (0.03,)}
"""Spreads that are simulated, by the number of nodes. Above the floor of 3 % the rates do not depend on the spread."""
MAX_PASSES: Final = 6


@dataclass(frozen=True, kw_only=True)
class FleetCase:
    """``spread`` is the standard deviation between nodes. It is ``own`` to the node, or of the ``moment``: then each
    run of a node draws its own.
    """

    nodes: int
    spread: float
    tails: Literal["normal", "t3"] = "normal"
    spread_is: Literal["own", "moment"] = "moment"
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.nodes} nodes, {100 * self.spread:.0f} %, {self.tails}, {self.spread_is}"


def healthy_cases() -> list[FleetCase]:
    return [
        FleetCase(nodes=nodes, spread=spread, tails=tails, spread_is=spread_is)
        for spread_is in ("moment", "own")
        for tails in ("normal", "t3")
        for nodes, spreads in SPREADS.items()
        for spread in spreads
    ]


def slow_cases() -> list[FleetCase]:
    return [
        FleetCase(nodes=64, spread=0.03, tails=tails, spread_is=spread_is, slow=True)
        for spread_is in ("moment", "own")
        for tails in ("normal", "t3")
    ]


def fleets(case: FleetCase, *, seed: int, count: int) -> Counter[str]:
    """Of ``count`` fleets: ``named`` counts those with a healthy node named, ``found`` those with the slow one named,
    ``asked`` those in which a second pass was asked for.
    """
    random = np.random.default_rng(seed)
    counted = Counter({"asked": 0, "found": 0, "named": 0})
    for _ in range(count):
        named, asked = _fleet(case, random)
        counted["asked"] += asked
        counted["found"] += case.slow and "0" in named
        counted["named"] += bool(named - {"0"} if case.slow else named)
    return counted


def _fleet(case: FleetCase, random: np.random.Generator) -> tuple[set[str], bool]:
    own = _draw(case, case.nodes, random) if case.spread_is == "own" else np.zeros(case.nodes)
    runs: list[RunSummary] = []
    where, times = list(range(case.nodes)), 1
    for number in range(MAX_PASSES):
        for _ in range(times):
            runs += _run(case, own, where, len(runs), number, random)
        nodes = by_node(runs)
        wanted = second_pass(nodes, runs[0])
        if wanted is None:
            break
        where, times = [int(name) for name in (*wanted.again, *wanted.beside)], RUNS_AGAIN
    return {str(node.node) for node in nodes if node.outlier == "slow"}, number > 0


def _run(
    case: FleetCase, own: NDArray[Any], where: Sequence[int], seed: int, number: int, random: np.random.Generator
) -> list[RunSummary]:
    logs = own[where] + random.normal(0, RUN_NOISE, len(where))
    if case.spread_is == "moment":
        logs = logs + _draw(case, len(where), random)
    start = STARTED + timedelta(minutes=10 * number)
    return [
        with_values(
            _template(),
            {"steady_images_per_s": 1000.0 * float(np.exp(log)) * (SLOW if case.slow and node == 0 else 1.0)},
            node=str(node),
            run_id=str(seed + at),
            started_at_utc=start,
        )
        for at, (node, log) in enumerate(zip(where, logs, strict=True))
    ]


def _draw(case: FleetCase, count: int, random: np.random.Generator) -> NDArray[Any]:
    draws = random.standard_t(3, count) / np.sqrt(3) if case.tails == "t3" else random.normal(size=count)
    return np.asarray(case.spread * draws)


@cache
def _template() -> RunSummary:
    return summarize(make_report(), source="simulated", location=ReportLocation())
