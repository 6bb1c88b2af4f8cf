"""The ten digits as pen strokes, and how far every point of a plane lies from them: the raw material of
:mod:`jobs.datasets.synthetic`. Integers only, so that every machine draws the same.

Control points are (x, y) in a box of 64 x 64 units, y pointing down.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.signedinteger[Any]]

BOX: Final = 64
"""Side of the box that control points are given in."""

MARGIN: Final = 10
"""Units around the box, so that no ink reaches the border of a distance map."""

SIDE: Final = 2 * (BOX + 2 * MARGIN)
"""Side of a distance map, in cells; a cell is half a unit."""

CELL_STEPS: Final = 4
"""Steps of a distance map in one cell's width."""

_FINE: Final = 64
"""Fixed point: parts of a unit in which curves are refined."""

_CURVE_ROUNDS: Final = 3

_SPACING_ROUNDS: Final = {"line": 5, "curve": 1, "loop": 1}
"""How often the gaps between points are halved: a straight stroke starts with few points, far apart."""

Point = tuple[int, int]


class Stroke(NamedTuple):
    """One movement of the pen: straight from point to point, or rounded, or rounded and closed."""

    form: Literal["line", "curve", "loop"]
    points: tuple[Point, ...]


Glyph = tuple[Stroke, ...]


def _line(*points: Point) -> Stroke:
    return Stroke("line", points)


def _curve(*points: Point) -> Stroke:
    return Stroke("curve", points)


def _loop(*points: Point) -> Stroke:
    return Stroke("loop", points)


GLYPHS: Final[tuple[tuple[Glyph, ...], ...]] = (
    (  # 0: an oval, a narrow leaning one, one whose ends cross at the top
        (_loop((32, 5), (48, 8), (52, 32), (48, 56), (32, 59), (16, 56), (12, 32), (16, 8)),),
        (_loop((38, 5), (48, 10), (46, 34), (38, 57), (26, 59), (17, 52), (19, 28), (28, 8)),),
        (_curve((40, 6), (20, 8), (12, 30), (16, 56), (34, 60), (50, 46), (50, 20), (38, 6), (26, 12)),),
    ),
    (  # 1: a bar, a leaning bar, with a flag, with flag and foot
        (_line((32, 7), (32, 57)),),
        (_line((40, 7), (26, 57)),),
        (_line((22, 20), (35, 7), (35, 57)),),
        (_line((23, 17), (33, 7), (33, 57)), _line((21, 57), (45, 57))),
    ),
    (  # 2: with a straight foot, with a loop in the foot, angular
        (_curve((14, 20), (18, 5), (44, 3), (50, 22), (36, 38), (14, 57)), _line((14, 57), (51, 57))),
        (_curve((16, 16), (26, 4), (48, 8), (46, 28), (26, 54), (12, 58), (14, 44), (30, 48), (40, 60), (52, 54)),),
        (_curve((16, 14), (32, 4), (48, 12), (46, 24)), _line((45, 22), (16, 56), (48, 56))),
    ),
    (  # 3: round, flat-topped, with a deep waist
        (
            _curve((15, 14), (24, 3), (48, 6), (48, 28), (26, 31)),
            _curve((26, 31), (50, 32), (54, 56), (28, 62), (13, 50)),
        ),
        (_line((16, 8), (46, 8), (29, 28)), _curve((29, 28), (50, 28), (54, 52), (32, 62), (13, 52))),
        (_curve((17, 9), (42, 2), (50, 22), (22, 31), (54, 38), (48, 62), (14, 55)),),
    ),
    (  # 4: closed, open, with a short stem
        (_line((41, 57), (41, 7), (12, 42), (53, 42)),),
        (_line((19, 8), (15, 34), (47, 34)), _line((45, 8), (42, 57))),
        (_curve((22, 7), (12, 36), (24, 40), (48, 34)), _line((46, 14), (38, 57))),
    ),
    (  # 5: angular, in one movement, with a separate roof
        (_line((47, 8), (20, 8), (18, 28)), _curve((18, 28), (34, 22), (54, 34), (48, 58), (26, 61), (13, 50))),
        (_curve((48, 7), (20, 7), (17, 28), (40, 26), (54, 46), (36, 64), (13, 54)),),
        (_line((22, 10), (19, 31)), _curve((19, 31), (46, 24), (52, 56), (28, 62), (15, 54)), _line((22, 10), (49, 6))),
    ),
    (  # 6: with a round back, with a straight back, with a small bowl
        (_curve((45, 7), (20, 8), (10, 40), (18, 61), (44, 60), (52, 42), (38, 30), (20, 36), (14, 46)),),
        (_line((40, 6), (19, 38)), _loop((18, 38), (36, 28), (50, 40), (46, 58), (28, 62), (14, 52))),
        (_curve((36, 6), (20, 18), (14, 44), (22, 60), (40, 60), (46, 46), (34, 38), (18, 48)),),
    ),
    (  # 7: plain, with a bar, with a bent stem, with a hook
        (_line((13, 8), (50, 8), (28, 57)),),
        (_line((14, 9), (48, 9), (27, 57)), _line((24, 33), (48, 33))),
        (_line((14, 9), (49, 8)), _curve((49, 8), (36, 24), (30, 40), (29, 57))),
        (_line((15, 17), (17, 8), (48, 10), (32, 57)),),
    ),
    (  # 8: two rings, one crossing movement, a small ring on a large one
        (
            _loop((32, 5), (46, 8), (46, 27), (32, 31), (18, 27), (18, 8)),
            _loop((32, 30), (50, 34), (50, 55), (32, 60), (14, 55), (14, 34)),
        ),
        (_loop((46, 12), (32, 2), (16, 12), (22, 28), (44, 38), (48, 54), (32, 63), (16, 54), (20, 38), (42, 27)),),
        (
            _loop((34, 6), (44, 10), (43, 23), (33, 27), (24, 22), (25, 10)),
            _loop((32, 26), (48, 32), (48, 54), (30, 61), (14, 54), (16, 34)),
        ),
    ),
    (  # 9: with a straight stem, with a curved stem, with a stem bent back
        (_loop((44, 10), (30, 3), (15, 12), (16, 32), (32, 36), (46, 26)), _line((45, 12), (42, 57))),
        (_curve((46, 22), (40, 4), (18, 4), (12, 28), (28, 38), (44, 26), (47, 10), (46, 34), (38, 57)),),
        (
            _loop((42, 9), (28, 6), (18, 18), (24, 32), (38, 31), (45, 20)),
            _curve((45, 16), (48, 54), (36, 62), (18, 57)),
        ),
    ),
)
"""By digit: the ways in which it is written."""


def distance_maps(glyph: Glyph, jitter: IntArray) -> NDArray[np.uint8]:
    """Distance from each cell to the glyph's strokes, once for each of ``n`` jittered copies.

    ``jitter`` has shape (n, points of all strokes, 2) and is in units of the box. The result has shape
    (n, SIDE, SIDE), indexed [copy, y, x], in quarter cells, and stops at 255.
    """
    points: list[IntArray] = []
    used = 0
    for stroke in glyph:
        count = len(stroke.points)
        control = np.array(stroke.points, dtype=np.int64) + jitter[:, used : used + count]
        points.append(_ink(stroke.form, control * _FINE))
        used += count
    return np.stack([_distance_map(copy) for copy in np.concatenate(points, axis=1)])


def control_points(glyph: Glyph) -> int:
    return sum(len(stroke.points) for stroke in glyph)


def _ink(form: Literal["line", "curve", "loop"], control: IntArray) -> IntArray:
    """Points so close that they stand for the stroke: shape (n, many, 2) from control points (n, few, 2)."""
    path = control
    if form == "loop":
        for _ in range(_CURVE_ROUNDS):
            path = _cut_corners(path, np.roll(path, -1, axis=1))
        path = np.concatenate([path, path[:, :1]], axis=1)
    elif form == "curve":
        for _ in range(_CURVE_ROUNDS):
            # The ends are kept, or the stroke would shrink away from them.
            path = np.concatenate([path[:, :1], _cut_corners(path[:, :-1], path[:, 1:]), path[:, -1:]], axis=1)
    for _ in range(_SPACING_ROUNDS[form]):
        middle = (path[:, :-1] + path[:, 1:]) >> 1
        path = np.concatenate([_interleave(path[:, :-1], middle), path[:, -1:]], axis=1)
    return path


def _cut_corners(here: IntArray, there: IntArray) -> IntArray:
    """One round of Chaikin's corner cutting, which tends to a quadratic B-spline."""
    return _interleave((3 * here + there) >> 2, (here + 3 * there) >> 2)


def _interleave(first: IntArray, second: IntArray) -> IntArray:
    return np.stack([first, second], axis=2).reshape(first.shape[0], -1, 2)


def _distance_map(ink: IntArray) -> NDArray[np.uint8]:
    """Shape (SIDE, SIDE) from ink points (many, 2) in fine units."""
    # Distances are smooth: taken at every second cell and interpolated, they cost a quarter.
    steps = 2 * CELL_STEPS
    at = np.arange(SIDE // 2 + 1, dtype=np.int32) * steps
    ink_steps = ((ink + MARGIN * _FINE) * steps // _FINE).astype(np.int32)
    across = (at[:, None] - ink_steps[None, :, 0]) ** 2
    down = (at[:, None] - ink_steps[None, :, 1]) ** 2
    squared = np.min(across[None, :, :] + down[:, None, :], axis=2)
    coarse = _integer_root(squared)
    rows = _interpolate(coarse, axis=0)
    return np.minimum(_interpolate(rows, axis=1), 255).astype(np.uint8)


def _interpolate(values: IntArray, *, axis: int) -> IntArray:
    """From SIDE / 2 + 1 samples along ``axis`` to SIDE: each sample and the middle to its next one."""
    values = np.moveaxis(values, axis, 0)
    out = np.empty((SIDE, *values.shape[1:]), dtype=values.dtype)
    out[0::2] = values[:-1]
    out[1::2] = (values[:-1] + values[1:]) >> 1
    return np.moveaxis(out, 0, axis)


_SQUARES: Final = np.arange(2048, dtype=np.int32) ** 2


def _integer_root(squared: IntArray) -> IntArray:
    """Square root, rounded down: looked up, not computed, for the sake of exactness on any machine."""
    return np.searchsorted(_SQUARES, squared, side="right") - 1
