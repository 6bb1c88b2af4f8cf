"""Runs of ranks whose steps really take time: each sleeps, then waits for the others, as in a collective.

Each rank is a thread with its own :class:`~jobs.training.rank_session.RankSession`. They are connected by the real
control channel, and exchange their times at the end of each epoch as ranks of a job do.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from jobs.adapter import StepTimes
from jobs.ranks.launcher import free_ports
from jobs.ranks.place import RankPlace
from jobs.training.rank_session import RankSession
from jobs.training.signals import InterruptGuard
from tests.support.ranked_reports import ranked_report

if TYPE_CHECKING:
    from jobs.adapter import Trainer
    from jobs.report import Report
    from jobs.report.ranks import RankPart

STEP_S: Final = 0.1
"""Long against the delay of a wake-up on a busy machine, some milliseconds, which would make a rank really slower."""
STEPS: Final = 3
EPOCHS: Final = 5


class SleepingTrainer:
    """The parts of a trainer that a session uses; a step sleeps for ``step_s``."""

    def __init__(self, step_s: float, barrier: threading.Barrier) -> None:
        self._step_s, self._barrier = step_s, barrier
        self._times = (0.0, 0.0)

    def train_epoch(self) -> None:
        compute_s = communication_s = 0.0
        for _ in range(STEPS):
            start_s = time.perf_counter()
            time.sleep(self._step_s)
            computed_s = time.perf_counter()
            self._barrier.wait(timeout=60)
            compute_s += computed_s - start_s
            communication_s += time.perf_counter() - computed_s
        self._times = (compute_s, communication_s)

    def step_times(self) -> StepTimes:
        return StepTimes(steps=STEPS, compute_s=self._times[0], communication_s=self._times[1])

    def weights(self) -> dict[str, Any]:
        return {"dense.kernel": np.ones(1)}


def sleeping_run(ranks: int, *, slow: int | None, slowdown: float = 1.2, seed: int = 1) -> Report:
    """The report of a run in which the rank ``slow`` sleeps ``slowdown`` times as long in each step."""
    ports = free_ports(2)
    barrier = threading.Barrier(ranks)

    def train(rank: int) -> list[RankPart]:
        place = RankPlace(
            rank=rank,
            size=ranks,
            local_rank=rank,
            local_size=ranks,
            addresses=(("127.0.0.1", ports[0]),),
            control=("127.0.0.1", ports[1]),
            engine="torchrun",
            token="",
        )
        session = RankSession(place, guard=InterruptGuard(), timeout_s=60)
        try:
            trainer = SleepingTrainer(STEP_S * (slowdown if rank == slow else 1.0), barrier)
            for epoch in range(1, EPOCHS + 1):
                trainer.train_epoch()
                session.finish_epoch(cast("Trainer", trainer), epoch, dict)
            session.end_training(None, failed=False)
            return session.rank_parts()
        finally:
            session.close()

    with ThreadPoolExecutor(ranks) as threads:
        parts = list(threads.map(train, range(ranks)))
    return ranked_report(ranks, seed=seed, parts=parts[0])
