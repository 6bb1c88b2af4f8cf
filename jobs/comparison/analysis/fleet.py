"""Compares nodes that ran one configuration: median speeds and outliers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT, SMALLEST_EFFECT, median, observed
from jobs.comparison.schema import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import OutlierKind

OUTLIER_SCORE: Final = 3.5
"""Modified z-score from which a node is an outlier, as Iglewicz and Hoaglin (1993) recommend."""

NODES_FOR_OUTLIERS: Final = RUNS_FOR_A_VERDICT
"""With fewer nodes no node is called an outlier."""


def by_node(runs: Iterable[RunSummary]) -> list[Node]:
    """Each node and GPU of ``runs``, slowest first, after those without a speed; empty with fewer than two."""
    runs_of: dict[tuple[str | None, tuple[str, ...]], list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.node is not None or run.gpu_uuids:
            runs_of[run.node, run.gpu_uuids].append(run)
    if len(runs_of) < 2:
        return []
    speeds = {key: observed(inside) for key, inside in runs_of.items()}
    medians = {key: value for key, values in speeds.items() if (value := median(values)) is not None}
    middle = median(list(medians.values())) or 0.0
    enough = len(medians) >= NODES_FOR_OUTLIERS
    scores = dict(zip(medians, _scores(list(medians.values())), strict=True)) if enough else {}
    nodes = [
        Node(
            node=key[0],
            gpu_uuids=list(key[1]),
            runs=len(inside),
            n=len(speeds[key]),
            median=medians.get(key),
            score=scores.get(key),
            outlier=_outlier(medians[key], middle, scores.get(key)) if key in medians else "no_speed",
        )
        for key, inside in runs_of.items()
    ]
    return sorted(nodes, key=lambda node: (node.median or 0.0, node.node or "", node.gpu_uuids))


def _scores(medians: Sequence[float]) -> list[float]:
    """Modified z-scores (Iglewicz and Hoaglin 1993): distance from the median in robust standard deviations.

    The deviation is the scaled median absolute deviation. If that is 0, since more than half of the nodes are equal,
    it is the scaled mean absolute deviation.
    """
    # Scaled to at most 1, so that no sum leaves a float's range; the score does not depend on the unit.
    values = np.asarray(medians, float) / (max(medians) or 1.0)
    distances = values - np.median(values)
    deviation = float(stats.median_abs_deviation(values, scale="normal"))
    if deviation == 0:
        deviation = float(np.mean(np.abs(distances))) / float(stats.foldnorm.mean(0))
    return [float(distance) / deviation if deviation > 0 else 0.0 for distance in distances]


def _outlier(speed: float, middle: float, score: float | None) -> OutlierKind | None:
    # If nodes are nearly equal, irrelevant differences have large scores too.
    if score is None or abs(score) <= OUTLIER_SCORE:
        return None
    if speed * SMALLEST_EFFECT <= middle:
        return "slow"
    return "fast" if speed >= middle * SMALLEST_EFFECT else None
