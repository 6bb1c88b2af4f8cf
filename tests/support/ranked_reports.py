"""Builds reports and log lines of runs of several ranks for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.report.rank_record import RankRecord
from jobs.report.ranks import RankEpoch, RankPart
from tests.support.reports import STARTED, make_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jobs.report import Report

STEPS = 100


def rank_parts(
    step_s: NDArray[Any] | Sequence[Sequence[float]], *, communication: float = 0.25, node: str = "node"
) -> list[RankPart]:
    """Parts of ranks whose steps compute for ``step_s``, by epoch and rank, and wait for the slowest.

    ``communication`` is the part of the slowest rank's step that no rank waits in.
    """
    times = np.asarray(step_s, float) * STEPS
    slowest = times.max(axis=1, keepdims=True)
    waits = slowest - times
    communications = communication * slowest + waits
    return [
        RankPart(
            rank=rank,
            node=f"{node}-{rank}",
            device="cpu",
            uuid=None,
            steps=STEPS * len(times),
            compute_s=float(times[:, rank].sum()),
            communication_s=float(communications[:, rank].sum()),
            wait_s=float(waits[:, rank].sum()),
            energy_j=None,
            util_percent=None,
            epochs=[
                RankEpoch(
                    epoch=at + 1,
                    steps=STEPS,
                    compute_s=float(times[at, rank]),
                    communication_s=float(communications[at, rank]),
                    weights_sha256="ab" * 32,
                )
                for at in range(len(times))
            ],
        )
        for rank in range(times.shape[1])
    ]


def ranked_report(
    ranks: int = 4,
    *,
    reduction: str = "exact",
    scaling: str = "strong",
    one_rank: float | None = None,
    parts: list[RankPart] | None = None,
    changes: dict[str, Any] | None = None,
    **report: Any,
) -> Report:
    """A report of ``ranks``, of which one alone reached ``one_rank`` images/s in the same job."""
    alone = None
    if one_rank is not None:
        part = {"position": "before", "images": 6400, "train_s": 6400 / one_rank}
        alone = {"images_per_s": one_rank, "parts": [part]}
    parts = rank_parts(np.full((5, ranks), 0.01)) if parts is None else parts
    run_id = f"{report.get('framework', 'torch')}-{ranks}-{reduction}-{scaling}-{report.get('seed', 1)}"
    return make_report(
        **{"run_id": run_id, **report},
        changes={
            "config.ranks": ranks,
            "config.reduction": reduction,
            "config.scaling": scaling,
            "one_rank": alone,
            "ranks": [part.model_dump() for part in parts],
            **(changes or {}),
        },
    )


def rank_line(
    rank: int, *, epochs: int = 2, run_id: str = "died", ranks: int = 4, ended: bool = False, **changes: Any
) -> RankRecord:
    """What ``rank`` printed into its log after ``epochs``."""
    part = rank_parts(np.full((max(epochs, 1), ranks), 0.01))[rank]
    part = part.model_copy(update={"epochs": part.epochs[:epochs]})
    config = {"recipe": "lenet", "protocol": "matched", "framework": "torch", "seed": 9, "epochs": 5}
    return RankRecord.model_validate(
        {
            "schema_version": "1.4",
            "run_id": run_id,
            "attempt": 1,
            "started_at_utc": STARTED,
            "ranks": ranks,
            "ended": ended,
            "config": config | {"ranks": ranks, "reduction": "exact", "scaling": "strong"},
            "kubernetes": None,
            "part": part,
        }
        | changes
    )
