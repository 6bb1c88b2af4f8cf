"""Runs of simulated ranks whose truth is known: how often an equal rank is named, and a slow one is found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.comparison.analysis.stragglers import stragglers_of
from jobs.comparison.input.metrics import pack_values
from jobs.comparison.input.rank_work import RankIdentity, RankWork
from jobs.comparison.input.run_summary import ReportLocation, summarize
from tests.support.ranked_reports import ranked_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jobs.comparison.input.run_summary import RunSummary

SLOW: Final = 1.2
"""Compute time of the slow rank, as a multiple of what it would be."""
RANKS: Final = (2, 4, 8)
OTHERS: Final = 0.05
"""Standard deviation of what slows all ranks alike from epoch to epoch."""
MEMORY: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class RankCase:
    """``noise`` is the standard deviation of a rank's logarithm from epoch to epoch, ``own`` that between equal ranks.

    ``memory`` is the noise's correlation with the epoch before. ``disturbed`` is the share of a rank's epochs that take
    half as long again.
    """

    name: str
    noise: float
    own: float = 0.0
    tails: Literal["normal", "t3"] = "normal"
    memory: float = 0.0
    disturbed: float = 0.0
    epochs: int = 5


CASES: Final = (
    RankCase(name="noise of 1 %", noise=0.01),
    RankCase(name="noise of 2 %", noise=0.02),
    RankCase(name="noise of 3 %", noise=0.03),
    RankCase(name="noise of 3 %, 10 epochs", noise=0.03, epochs=10),
    RankCase(name="noise of 1 %, 3 epochs", noise=0.01, epochs=3),
    RankCase(name="noise of 2 %, equal ranks differ by 1 %", noise=0.02, own=0.01),
    RankCase(name="noise of 1 %, equal ranks differ by 2 %", noise=0.01, own=0.02),
    RankCase(name="heavy-tailed noise (t₃) of 2 %", noise=0.02, tails="t3"),
    RankCase(name="noise of 2 % with memory", noise=0.02, memory=MEMORY),
    RankCase(name="noise of 1 %, 1 % of epochs longer by half", noise=0.01, disturbed=0.01),
    RankCase(name="noise of 1 %, 10 % of epochs longer by half", noise=0.01, disturbed=0.1),
    RankCase(name="noise of 10 %", noise=0.10),
)

PROMISED: Final = {"noise of 1 %", "noise of 2 %"}
"""The cases in which a slow rank is promised to be named in 95 % of runs, whatever the number of ranks."""


def named(case: RankCase, ranks: int, *, slow: bool, seed: int, count: int) -> Counter[str]:
    """Of ``count`` runs: ``found`` with the slow rank named, ``false`` with another one."""
    random = np.random.default_rng([seed, ranks, slow])
    counted = Counter({"found": 0, "false": 0})
    for _ in range(count):
        logs = _logs(case, ranks, random)
        logs[:, 0] += np.log(SLOW) if slow else 0.0
        said = {straggler.rank for straggler in stragglers_of(_template(), _work(np.exp(logs)))}
        counted["found"] += slow and 0 in said
        counted["false"] += bool(said - {0} if slow else said)
    return counted


def _logs(case: RankCase, ranks: int, random: np.random.Generator) -> NDArray[Any]:
    """By epoch and rank."""
    shape = (case.epochs, ranks)
    noise = random.normal(size=shape) if case.tails == "normal" else random.standard_t(3, shape) / np.sqrt(3)
    for epoch in range(1, case.epochs):
        noise[epoch] = case.memory * noise[epoch - 1] + np.sqrt(1 - case.memory**2) * noise[epoch]
    disturbed = np.log(1.5) * (random.random(shape) < case.disturbed)
    alike = random.normal(0, OTHERS, (case.epochs, 1))
    return np.asarray(case.noise * noise + random.normal(0, case.own, ranks) + alike + disturbed)


def _work(step_s: NDArray[Any]) -> RankWork:
    template = _template().rank_work
    assert template is not None
    return RankWork(
        one_rank_images_per_s=template.one_rank_images_per_s,
        times=template.times,
        ranks=tuple(RankIdentity(rank, None, None) for rank in range(step_s.shape[1])),
        epochs=tuple(range(1, len(step_s) + 1)),
        packed_step_s=pack_values(step_s.ravel().tolist()),
        untimed=None,
    )


@cache
def _template() -> RunSummary:
    return summarize(ranked_report(), source="simulated", location=ReportLocation())
