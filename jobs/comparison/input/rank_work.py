"""What the ranks of a run did: their times by epoch, and what one rank reached alone in the same job."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.comparison.input.metrics import Missing, null_reason, pack_values, plausible, unpack_values
from jobs.comparison.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobs.report import Report
    from jobs.report.ranks import RankPart

MAX_RANKS: Final = 64
"""The most ranks of a run that is read. A job has at most 8."""
MAX_EPOCHS: Final = 1000
"""Epochs whose times are kept of one run, the first ones."""
_TEXT_LIMIT: Final = 200
_RESUMED: Final = Missing("the run was resumed: its speed is of all attempts, that of one rank of the last only")
_NOT_PLAUSIBLE: Final = Missing("a time of a rank is not plausible")


class RankIdentity(NamedTuple):
    """One rank, and where it trained."""

    rank: int
    node: str | None
    uuid: str | None


class RankSeen(NamedTuple):
    """A rank that left a log line, in a run without a report; ``epoch`` is the last that it ended, 0 for none."""

    rank: int
    node: str | None
    epoch: int
    ended: bool


class RankTimes(NamedTuple):
    """Seconds of all ranks together: ``wait_s`` is the part of ``communication_s`` in which they waited."""

    compute_s: float
    communication_s: float
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankWork:
    """The work of several ranks in one run.

    ``one_rank_images_per_s`` is what rank 0 reached alone in the same job. ``times`` are of this attempt.
    ``packed_step_s`` has the compute time of a step for each rank of each epoch; empty where ``untimed`` says why.
    ``seen`` is only of a run without a report.
    """

    one_rank_images_per_s: float | Missing
    times: RankTimes | Missing
    ranks: tuple[RankIdentity, ...]
    epochs: tuple[int, ...]
    packed_step_s: bytes
    untimed: Missing | None
    seen: tuple[RankSeen, ...] = ()

    @property
    def step_s(self) -> list[tuple[float, ...]]:
        """By epoch, the compute time of a step of each rank, in the order of ``ranks``."""
        values, count = unpack_values(self.packed_step_s), len(self.ranks)
        return [values[start : start + count] for start in range(0, len(values), count)] if count else []


def rank_work(report: Report) -> RankWork | None:
    """The work of ``report``'s ranks; ``None`` for one rank, and for more than any job has."""
    if not 1 < report.config.ranks <= MAX_RANKS:
        return None
    parts = sorted(report.ranks, key=lambda part: part.rank)[:MAX_RANKS]
    whole = [part.rank for part in parts] == list(range(report.config.ranks))
    incomplete = None if whole else Missing(f"the report has not the parts of all {report.config.ranks} ranks")
    epochs = _common_epochs(parts) if whole else []
    step_s = [list(_step_s(parts, at)) for at in range(len(epochs))]
    untimed = incomplete or _why_untimed(report, step_s)
    return RankWork(
        one_rank_images_per_s=_one_rank_speed(report),
        times=incomplete or _times(report, parts),
        ranks=tuple(RankIdentity(part.rank, _cut(part.node), _cut(part.uuid)) for part in parts),
        epochs=() if untimed else tuple(epochs),
        packed_step_s=b"" if untimed else pack_values(value for of_epoch in step_s for value in of_epoch),
        untimed=untimed,
    )


def _one_rank_speed(report: Report) -> float | Missing:
    if report.earlier_attempts:
        return _RESUMED
    if report.one_rank is None:
        return Missing(_cut(null_reason(report, "one_rank")) or "")
    speed = report.one_rank.images_per_s
    return speed if speed > 0 and plausible(speed) else Missing(f"one rank's speed of {speed:.4g} is not plausible")


def _times(report: Report, parts: Sequence[RankPart]) -> RankTimes | Missing:
    totals: list[float] = []
    for name in ("compute_s", "communication_s", "wait_s"):
        values = [getattr(part, name) for part in parts]
        if None in values:
            return Missing(_cut(null_reason(report, f"ranks[].{name}")) or "")
        if not all(map(plausible, values)):
            return _NOT_PLAUSIBLE
        totals.append(sum(values))
    times = RankTimes(*totals)
    return times if times.compute_s + times.communication_s > 0 else Missing("no step was timed")


def _common_epochs(parts: Sequence[RankPart]) -> list[int]:
    """The epochs that all ranks report in the same places; none where one has others, as in no report of a job."""
    epochs = [[epoch.epoch for epoch in part.epochs[:MAX_EPOCHS]] for part in parts]
    same = bool(epochs) and all(other == epochs[0] for other in epochs)
    return epochs[0] if same and all(map(plausible, epochs[0])) else []


def _step_s(parts: Sequence[RankPart], at: int) -> Iterator[float]:
    for part in parts:
        epoch = part.epochs[at]
        known = epoch.compute_s is not None and epoch.steps > 0 and plausible(epoch.steps)
        yield epoch.compute_s / epoch.steps if known and epoch.compute_s is not None else nan


def _why_untimed(report: Report, step_s: Sequence[Sequence[float]]) -> Missing | None:
    if not step_s:
        return Missing("no epoch was finished by all ranks")
    values = [value for of_epoch in step_s for value in of_epoch]
    if any(map(isnan, values)):
        return Missing(_cut(null_reason(report, "ranks[].epochs[].compute_s")) or "")
    return None if all(value > 0 and plausible(value) for value in values) else _NOT_PLAUSIBLE


def _cut(text: str | None) -> str | None:
    return None if text is None else shortened(text, _TEXT_LIMIT)
