"""Finds the ranks of a run that compute for longer than the others, from the times of each epoch.

A rank's value in an epoch is the logarithm of its compute time per step over the median of the other ranks'. Waiting is
no part of it. A rank is named if it was clearly slower in most epochs, and the median of its epochs is larger than
chance makes it in 99 of 100 runs of equal ranks. That limit has no formula. It is simulated, seeded, for normal and for
heavy-tailed noise.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import exp, log
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.choices import SHARDS
from jobs.comparison.analysis.fleet_limit import FALSE_NAMES_RATIO
from jobs.comparison.analysis.robust import trimmed_deviation
from jobs.comparison.schema_scaling import EpochRatio, RankSpeeds, Straggler, Unmeasured
from jobs.comparison.text import join_limited, pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jobs.choices import FrameworkName
    from jobs.comparison.input.rank_work import RankWork
    from jobs.comparison.input.run_summary import RunSummary

SMALLEST_SLOWDOWN: Final = 1.10
"""A rank is named from this ratio on: healthy devices of one kind differ by less."""

SLOW_EPOCHS_RATIO: Final = 0.8
"""The share of its epochs in which a rank must be slower by that: what disturbs ranks now and then is not named."""

EPOCHS_NEEDED: Final = 3
"""Of fewer epochs the median is not robust against one that was disturbed."""

MAX_NAMED: Final = 5
_MAX_EPOCHS_SIMULATED: Final = 40
"""Of more epochs the limit is smaller, and this one holds."""
_DRAWS: Final = 200_000
_MAX_ROWS: Final = 8_000
_SEED: Final = 20_200_813


def rank_speeds(framework: FrameworkName, runs: Sequence[RunSummary]) -> RankSpeeds | None:
    """The slow ranks of a side's ``runs``; ``None`` for runs of one rank, or of which none has a report."""
    reported = [(run, run.rank_work) for run in runs if run.has_report and run.rank_work is not None]
    if not reported:
        return None
    reasons = [_why_not_judged(work) for _, work in reported]
    stragglers = [
        straggler
        for (run, work), reason in zip(reported, reasons, strict=True)
        if reason is None
        for straggler in stragglers_of(run, work)
    ]
    not_judged = Counter(reason for reason in reasons if reason is not None)
    judged = len(reported) - not_judged.total()
    unmeasured = [Unmeasured(reason=reason, runs=count) for reason, count in sorted(not_judged.items())]
    return RankSpeeds(
        framework=framework,
        judged=judged,
        stragglers=stragglers,
        not_judged=unmeasured,
        text=_text(judged, stragglers, unmeasured, ranks=runs[0].rank_setting.ranks),
    )


def stragglers_of(run: RunSummary, work: RankWork) -> list[Straggler]:
    """The slow ranks of ``run``, which has enough epochs."""
    logs = np.log(np.array(work.step_s))
    differences = _differences(logs[None])[0]
    middles, scales = (part[0] for part in _middles(differences[None]))
    limits = _limit(len(work.ranks), min(len(logs), _MAX_EPOCHS_SIMULATED)) * scales
    slow = (differences > log(SMALLEST_SLOWDOWN)).mean(axis=0) >= SLOW_EPOCHS_RATIO
    return [
        Straggler(
            run_id=run.run_id,
            attempt=run.attempt,
            **rank._asdict(),
            ratio=exp(middle),
            epochs=[
                EpochRatio(epoch=epoch, ratio=exp(difference))
                for epoch, difference in zip(work.epochs, differences[:, at], strict=True)
            ],
        )
        for at, (rank, middle, limit) in enumerate(zip(work.ranks, middles, limits, strict=True))
        if slow[at] and middle > limit
    ]


def _why_not_judged(work: RankWork) -> str | None:
    if work.untimed is not None:
        return work.untimed.reason
    if SHARDS % len(work.ranks):
        return f"{len(work.ranks)} ranks compute unequal parts of a step"
    if len(work.epochs) < EPOCHS_NEEDED:
        return f"{pluralize(len(work.epochs), 'epoch')}, {EPOCHS_NEEDED} are needed"
    return None


def _differences(logs: NDArray[Any]) -> NDArray[Any]:
    """Each rank's logarithm less the median of the others', of runs x epochs x ranks; the ranks are an even number."""
    above = logs.shape[2] // 2
    ordered = np.partition(logs, (above - 1, above), axis=2)
    low, high = ordered[:, :, above - 1, None], ordered[:, :, above, None]
    # Without a value of the lower half, the median of the others is the lowest of the upper half.
    return np.asarray(logs - np.where(logs <= low, high, low))


def _middles(differences: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each rank the median over the epochs, and how much it varies from epoch to epoch; both of runs x ranks.

    That is the spread of all ranks, or its own where this is larger: one rank may be noisier than the others.
    """
    runs, epochs, ranks = differences.shape
    middles = np.median(differences, axis=1)
    residuals = differences - middles[:, None, :]
    pooled = trimmed_deviation(residuals.reshape(runs, epochs * ranks))
    own = trimmed_deviation(residuals.transpose(0, 2, 1).reshape(runs * ranks, epochs)).reshape(runs, ranks)
    return middles, np.maximum(pooled[:, None], own)


@lru_cache(maxsize=64)
def _limit(ranks: int, epochs: int) -> float:
    """The largest median of a rank, in units of its scale, that is exceeded in 1 % of simulated runs of equal ranks."""
    random = np.random.default_rng([_SEED, ranks, epochs])
    shape = (min(_MAX_ROWS, _DRAWS // (ranks * epochs)), epochs, ranks)
    limits: list[float] = []
    for logs in (random.standard_normal(shape), random.standard_t(3, shape)):
        middles, scales = _middles(_differences(logs))
        limits.append(float(np.quantile((middles / scales).max(axis=1), 1 - FALSE_NAMES_RATIO)))
    return max(limits)


def _text(judged: int, stragglers: Sequence[Straggler], not_judged: Sequence[Unmeasured], *, ranks: int) -> str:
    parts: list[str] = []
    if stragglers:
        named = [_straggler_text(straggler) for straggler in stragglers]
        parts.append(f"slower than the other ranks of the run: {join_limited(named, MAX_NAMED, '; ')}")
        if ranks == 2:
            parts.append("of two ranks it is only known that one is slower than the other")
    elif judged:
        parts.append(f"no rank is slower than the others in {pluralize(judged, 'run')}")
    parts += [f"ranks not judged in {pluralize(part.runs, 'run')} ({part.reason})" for part in not_judged]
    return "; ".join(parts)


def _straggler_text(straggler: Straggler) -> str:
    where = ", ".join(part for part in (straggler.node, straggler.uuid) if part)
    slow = sum(part.ratio > SMALLEST_SLOWDOWN for part in straggler.epochs)
    return (
        f"rank {straggler.rank}{f' ({where})' if where else ''} in {straggler.run_id}, {straggler.ratio:.2f} times "
        f"their compute time ({slow} of {len(straggler.epochs)} epochs)"
    )
