"""Judges every metric of a gate at once, so that the whole gate keeps its false alarm rate."""

from __future__ import annotations

from math import expm1, log
from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.comparison.analysis.gate_shift import measured, shift
from jobs.comparison.analysis.statistics import SMALLEST_EFFECT
from jobs.comparison.input.metrics import METRICS, Metric
from jobs.comparison.schema_gate import GateMetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.comparison.analysis.gate_shift import Measured
    from jobs.comparison.analysis.robust import Shift
    from jobs.comparison.analysis.sessions import Sessions
    from jobs.comparison.input.run_summary import RunSummary

GATE_ALPHA: Final = 0.01
"""False alarm rate of the whole gate: how often unchanged runs are called a regression. Holm's correction holds it."""

RATIO_FLOOR: Final = SMALLEST_EFFECT - 1
"""The smallest change of a speed or a time that counts, as a share."""

ACCURACY_FLOOR: Final = 0.002
"""The smallest change of an accuracy that counts: 20 of MNIST's 10,000 test images."""

TOLERANCE_CAP: Final = 0.15
"""A gate that tolerates more than this share cannot say that nothing changed."""

POWER: Final = 0.9
"""The certainty for which the smallest visible change is stated."""

DIRECTION: Final = {"steady_images_per_s": 1, "train_wall_s": -1, "test_accuracy_ratio": 1}
"""The gated metrics: 1 if more is better, -1 if less is."""

_MAX_EXPONENT: Final = 700.0
"""About the largest power of e that is a float."""


class Candidate(NamedTuple):
    """One metric of a side, now and before; ``shift`` is ``None`` where there is too little to compare."""

    metric: Metric
    old: Measured
    new: Measured
    shift: Shift | None

    @property
    def floor(self) -> float:
        return log(1 + RATIO_FLOOR) if self.metric.as_ratio else ACCURACY_FLOOR

    def p_value(self, sign: int) -> float | None:
        """One-sided p of a change for the better (``sign`` 1) or the worse (-1); 1 for a change under the floor."""
        if self.shift is None:
            return None
        direction = sign * DIRECTION[self.metric.name]
        return self.shift.p_value(direction) if self.shift.change * direction > self.floor else 1.0

    def tolerated(self, level: float) -> float:
        """The change, of logarithms where the metric is a ratio, that is tolerated at ``level``."""
        assert self.shift is not None
        return max(self.shift.distance(level), self.floor)

    def share(self, change: float) -> float:
        """``change`` as a share of what was before, where the metric is compared by ratio."""
        return expm1(min(change, _MAX_EXPONENT)) if self.metric.as_ratio else change


def candidates(now: Sequence[RunSummary], before: Sequence[RunSummary], sessions: Sessions) -> list[Candidate]:
    """The gated metrics of one side."""
    found: list[Candidate] = []
    for metric in METRICS:
        if metric.name in DIRECTION:
            old, new = (measured(runs, metric, sessions) for runs in (before, now))
            # A score does not depend on the day.
            together = not metric.as_ratio or len({sessions[run.started_at_utc] for run in (*now, *before)}) == 1
            moved = shift(old, new, as_ratio=metric.as_ratio, same_session=together)
            found.append(Candidate(metric, old, new, moved))
    return found


def judge(found: Sequence[Candidate]) -> list[GateMetric]:
    """The outcome of each of all candidates of a gate."""
    worse, better = (_Family([candidate.p_value(sign) for candidate in found]) for sign in (-1, 1))
    return [_judged(candidate, at, worse, better) for at, candidate in enumerate(found)]


class _Family:
    """Holm's (1979) tests of one direction: which are rejected, and the level that each was held against."""

    def __init__(self, p_values: Sequence[float | None]) -> None:
        self.p_values = p_values
        ranked = sorted(p for p in p_values if p is not None)
        tests = len(ranked)
        rejected = next((rank for rank, p in enumerate(ranked) if p > GATE_ALPHA / (tests - rank)), tests)
        self._largest_rejected = ranked[rejected - 1] if rejected else -1.0
        self.level_rejected = GATE_ALPHA / (tests - rejected + 1)
        self.level = GATE_ALPHA / max(1, tests - rejected)

    def rejects(self, at: int) -> bool:
        p = self.p_values[at]
        return p is not None and p <= self._largest_rejected

    def level_of(self, at: int) -> float:
        return self.level_rejected if self.rejects(at) else self.level


def _judged(candidate: Candidate, at: int, worse: _Family, better: _Family) -> GateMetric:
    moved = candidate.shift
    result = GateMetric(
        name=candidate.metric.name,
        unit=candidate.metric.unit,
        n_before=candidate.old.n,
        n_now=candidate.new.n,
        sessions_before=len(candidate.old.sessions),
        sessions_now=len(candidate.new.sessions),
        median_before=candidate.old.median,
        median_now=candidate.new.median,
    )
    if moved is None:
        return result
    direction = DIRECTION[candidate.metric.name]
    is_gain = moved.change * direction > 0
    family = better if is_gain else worse
    # The limit is in the change's own direction: a speed that may fall by 18 % may rise by 22 %.
    limit = candidate.tolerated(family.level_of(at)) * direction * (1 if is_gain else -1)
    blind = abs(candidate.share(-direction * candidate.tolerated(worse.level_of(at)))) > TOLERANCE_CAP
    visible = candidate.tolerated(worse.level) + moved.distance(1 - POWER)
    changes = {
        "change": candidate.share(moved.change),
        "tolerated": abs(candidate.share(limit)),
        "visible": abs(candidate.share(-direction * visible)),
        "p_value": worse.p_values[at],
    }
    outcome = "worse" if worse.rejects(at) else "better" if better.rejects(at) else "unseen" if blind else "within"
    return result.model_copy(update={**changes, "outcome": outcome})
