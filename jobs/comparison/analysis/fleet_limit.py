"""How far below the others the slowest node of a healthy fleet may be.

Speeds of nodes may be normal or heavy-tailed (Student's t with 3 degrees of freedom). Few nodes do not show which, so
heavy tails are assumed for them. The limits have no formula, and are simulated, seeded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.comparison.analysis.robust import trimmed_deviation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FALSE_NAMES_RATIO: Final = 0.01
"""How often the slowest of a healthy fleet is beyond the limit."""

NODES_TO_SEE_TAILS: Final = 64
"""With fewer nodes heavy tails are assumed."""

Tails = Literal["normal", "t3"]

_TRIMMED_RATIO: Final = 0.1
_SLOWEST: Final = 3
"""Nodes whose speeds the shape is judged without, since they may be slow."""
_LOOKS_HEAVY_RATIO: Final = 0.01
"""How often a fleet with normal speeds is taken as heavy-tailed."""
_DRAWS: Final = 4_000_000
_MAX_ROWS: Final = 40_000
_MAX_SIMULATED: Final = 2000
_SEED: Final = 20_200_813


def node_scale(logs: Sequence[float]) -> float:
    """Robust standard deviation of the nodes' log speeds, unbiased where they are normal; needs three or more."""
    values = np.asarray(logs, float)
    bias = _simulated(min(values.size, _MAX_SIMULATED), "normal")[1]
    return float(trimmed_deviation(values[None, :], _TRIMMED_RATIO)[0] / bias)


def slowest_limit(logs: Sequence[float]) -> float:
    """The distance from the median, in :func:`node_scale`, that the slowest of a healthy fleet like this rarely has."""
    n = min(len(logs), _MAX_SIMULATED)
    heavy = n < NODES_TO_SEE_TAILS or _shape(np.asarray(logs, float)[None, :])[0] < _simulated(n, "normal")[2]
    return _simulated(n, "t3" if heavy else "normal")[0]


def _shape(rows: NDArray[Any]) -> NDArray[Any]:
    """Geary's (1935) ratio of mean to standard deviation of each row: smaller in heavier tails."""
    rest = np.sort(rows, axis=1)[:, _SLOWEST:]
    distances = rest - np.median(rest, axis=1, keepdims=True)
    return np.asarray(np.abs(distances).mean(axis=1) / np.maximum(distances.std(axis=1), 1e-300))


@lru_cache(maxsize=64)
def _simulated(n: int, tails: Tails) -> tuple[float, float, float]:
    """Of simulated healthy fleets of ``n``: the limit, the bias of the scale for normal speeds, the shape's bound."""
    count = min(_MAX_ROWS, _DRAWS // n)
    random = np.random.default_rng([_SEED, n])
    rows = random.standard_normal((count, n)) if tails == "normal" else random.standard_t(3, (count, n))
    deviations = trimmed_deviation(rows, _TRIMMED_RATIO)
    bias = float(deviations.mean()) if tails == "normal" else _simulated(n, "normal")[1]
    below = np.median(rows, axis=1) - rows.min(axis=1)
    limit = float(np.quantile(below * bias / deviations, 1 - FALSE_NAMES_RATIO))
    shape = float(np.quantile(_shape(rows), _LOOKS_HEAVY_RATIO)) if n > _SLOWEST + 1 else 0.0
    return limit, bias, shape
