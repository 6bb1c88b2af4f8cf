"""What each rank of a run did, as far as it is known in this process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from jobs.errors import JobError
from jobs.report.ranks import RankEpoch, RankPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.adapter import Trainer


class RanksDiffer(JobError):
    """The ranks' weights are no longer the same, which no correct machine does."""


class RankParts:
    """The parts of all ranks. Every rank knows all of them, since the values are exchanged."""

    def __init__(self, size: int) -> None:
        self._known: list[dict[str, Any]] = [{"epochs": []} for _ in range(size)]

    def update(self, values: Sequence[dict[str, Any]]) -> None:
        """Add each rank's ``values``, given by rank."""
        for known, new in zip(self._known, values, strict=True):
            known.update(new)

    def add_epoch(self, epochs: Sequence[dict[str, Any]]) -> None:
        """Add an epoch of each rank, given by rank as fields of :class:`~jobs.report.ranks.RankEpoch`.

        Raises:
            RanksDiffer: the weights are not the same in all ranks.
        """
        for known, epoch in zip(self._known, epochs, strict=True):
            known["epochs"].append(epoch)
        hashes = [epoch["weights_sha256"] for epoch in epochs]
        if len({*hashes}) > 1:
            raise RanksDiffer(_differing(hashes, epochs[0]["epoch"], epochs[0]["steps"]))

    def part(self, rank: int) -> RankPart:
        known = self._known[rank]
        epochs = [RankEpoch.model_validate(epoch) for epoch in known["epochs"]]
        return RankPart(
            rank=rank,
            node=known.get("node"),
            device=known.get("device", "not known"),
            uuid=known.get("uuid"),
            steps=sum(epoch.steps for epoch in epochs),
            compute_s=_total([epoch.compute_s for epoch in epochs]),
            communication_s=_total([epoch.communication_s for epoch in epochs]),
            wait_s=_total(self._waits(rank)),
            energy_j=known.get("energy_j"),
            util_percent=known.get("util_percent"),
            epochs=epochs,
        )

    def _waits(self, rank: int) -> list[float | None]:
        """By epoch: communication above the least of any rank. The slowest rank arrives last and waits least."""
        waits: list[float | None] = []
        for of_all in zip(*(known["epochs"] for known in self._known), strict=True):
            times = [epoch["communication_s"] for epoch in of_all]
            waits.append(None if None in times else times[rank] - min(times))
        return waits


def weights_sha256(trainer: Trainer) -> str:
    """SHA-256 of all weights in the canonical layout, as float64, in the recipe's order."""
    digest = hashlib.sha256()
    for array in trainer.weights().values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def _differing(hashes: list[str], epoch: int, steps: int) -> str:
    most = max(hashes, key=hashes.count)
    ranks = [rank for rank, value in enumerate(hashes) if value != most]
    which = f"the weights of ranks {ranks} differ from the others'"
    if hashes.count(most) <= len(hashes) / 2:
        which = f"the ranks have {len({*hashes})} different weights, and no majority has the same"
    return f"{which} after epoch {epoch}, and were equal before its {steps} steps; check these devices with doctor"


def _total(values: list[float | None]) -> float | None:
    """The sum; ``None`` where one is missing, or there is none."""
    present = [value for value in values if value is not None]
    return sum(present) if present and len(present) == len(values) else None
