"""The parts of the report of one run over several ranks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.report.configuration import Amount, Count, Model, Number, Sha256


class RankEpoch(Model):
    """One epoch of one rank."""

    epoch: Number
    steps: Count
    compute_s: Amount | None = Field(description="the steps without communication; null where it cannot be timed")
    communication_s: Amount | None = Field(description="within the engine's collectives, waiting included")
    weights_sha256: Sha256 = Field(description="of all weights after the epoch, equal in every rank")


class RankPart(Model):
    """One rank of a run: one process, on one device."""

    rank: Count
    node: str | None = Field(description="the Kubernetes node, or the name of the host")
    device: str
    uuid: str | None
    steps: Count = Field(description="of this attempt")
    compute_s: Amount | None
    communication_s: Amount | None
    wait_s: Amount | None = Field(
        description="waiting for the slowest: by epoch, communication_s above the least of any rank"
    )
    energy_j: Amount | None = Field(description="of the rank's device in steady training")
    util_percent: Amount | None = Field(description="mean share of time in which some kernel ran, in steady training")
    epochs: list[RankEpoch]


class OneRankPart(Model):
    """One measurement of the same steps by rank 0 alone."""

    position: Literal["before", "after"] = Field(description="before or after all ranks trained")
    images: Count
    train_s: Amount


class OneRankTraining(Model):
    """Rank 0 alone, with the same reduction, while the others waited. The weights are not changed by it."""

    images_per_s: Amount = Field(description="all images of the parts over all their time")
    parts: list[OneRankPart]
