"""Verdicts on simulated comparisons, whose truth is known."""

from __future__ import annotations

import numpy as np

from jobs.comparison.analysis.statistics import holm_correction, permutation_p, ratio_of_medians, verdict_kind

COMPARISONS = 1000
RUNS = 10
NOISE = 0.05


def verdicts(speed: float, seed: int, comparisons: int = COMPARISONS) -> list[str]:
    """What is said of ``comparisons`` pairs of sides, the first ``speed`` times as fast as the second."""
    random = np.random.default_rng(seed)
    said: list[str] = []
    for _ in range(comparisons):
        above, below = ((level * random.normal(1000, 1000 * NOISE, RUNS)).tolist() for level in (speed, 1.0))
        found = ratio_of_medians({"tensorflow": below, "torch": above})
        (significance,) = holm_correction([permutation_p(above, below)])
        kind = verdict_kind((RUNS, RUNS), found, significance)
        assert found is not None
        said.append(kind if kind != "faster" else "first" if found.ratio > 1 else "second")
    return said
