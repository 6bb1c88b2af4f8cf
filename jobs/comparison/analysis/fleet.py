"""One configuration on many nodes: each node's median, and the nodes that stand apart from the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT, SMALLEST_EFFECT
from jobs.comparison.input.metrics import HEADLINE, Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from jobs.comparison.input.run_summary import RunSummary

OUTLIER_SCORE: Final = 3.5
"""Modified z-score from which a node stands apart, as Iglewicz and Hoaglin (1993) recommend."""

NODES_FOR_OUTLIERS: Final = RUNS_FOR_A_VERDICT
"""With fewer nodes nobody can say which of them is the odd one."""


@dataclass(frozen=True, kw_only=True)
class NodeSpeed:
    """The runs on one node and GPU: how many, how many of them count, and their median headline.

    ``score`` is the modified z-score among all nodes; ``outlier`` says on which side the node stands apart.
    """

    node: str | None
    gpu_uuids: tuple[str, ...]
    runs: int
    n: int
    median: float | None
    score: float | None
    outlier: str | None


def by_node(runs: Iterable[RunSummary]) -> list[NodeSpeed]:
    """Each node and GPU of ``runs``, slowest first, those without a speed before all; empty with fewer than two."""
    places: dict[tuple[str | None, tuple[str, ...]], list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.node is not None or run.gpu_uuids:
            places[run.node, run.gpu_uuids].append(run)
    if len(places) < 2:
        return []
    medians = {place: _median(found) for place, found in places.items()}
    known = [median for median in medians.values() if median is not None]
    scores = _scores(known) if len(known) >= NODES_FOR_OUTLIERS else None
    middle = float(np.quantile(known, 0.5)) if known else 0.0
    by_median = {} if scores is None else dict(zip(known, scores.tolist(), strict=True))
    speeds = [
        NodeSpeed(
            node=node,
            gpu_uuids=gpu_uuids,
            runs=len(found),
            n=len(_speeds(found)),
            median=(median := medians[node, gpu_uuids]),
            score=(score := None if median is None else by_median.get(median)),
            outlier="no_speed" if median is None else _outlier(median, middle, score),
        )
        for (node, gpu_uuids), found in places.items()
    ]
    return sorted(speeds, key=lambda one: (one.median or 0.0, one.node or "", one.gpu_uuids))


def _speeds(runs: Iterable[RunSummary]) -> list[float]:
    values = (run.measured[HEADLINE.name] for run in runs if HEADLINE.counts(run))
    return sorted(value for value in values if not isinstance(value, Missing))


def _median(runs: Iterable[RunSummary]) -> float | None:
    values = _speeds(runs)
    return float(np.quantile(values, 0.5)) if values else None


def _scores(medians: Sequence[float]) -> NDArray[np.float64]:
    """Distance from the median in robust standard deviations.

    The deviation is the scaled median absolute one; where more than half of the nodes are equal that is 0, and the
    scaled mean absolute one stands in, as Iglewicz and Hoaglin have it.
    """
    # The unit has no part in a score; without it no sum leaves a float's range.
    values = np.asarray(medians, float) / (max(medians) or 1.0)
    away = values - np.median(values)
    deviation = float(stats.median_abs_deviation(values, scale="normal"))
    if deviation == 0:
        deviation = float(np.mean(np.abs(away))) / float(stats.foldnorm.mean(0))
    return away / deviation if deviation > 0 else np.zeros_like(away)


def _outlier(median: float, middle: float, score: float | None) -> str | None:
    # A tight fleet makes large scores of differences that matter to nobody.
    if score is None or abs(score) <= OUTLIER_SCORE:
        return None
    if median * SMALLEST_EFFECT <= middle:
        return "slow"
    return "fast" if median >= middle * SMALLEST_EFFECT else None
