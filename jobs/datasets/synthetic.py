"""The embedded data set: digit-like images drawn from a fixed seed, for a machine with no network.

Runs on different data are never compared, so every machine must draw the same bytes. Hence integer arithmetic only,
and random numbers only from ``PCG64.random_raw``: NumPy keeps that stream stable, but not its distributions.

Each image is a digit of pen strokes with random size, shear, bend, position, pen width and brightness. A stray stroke
crosses it, another one erases a part of it, and noise is added. A linear model does poorly on such images.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.datasets.dataset import ImageDataset
from jobs.datasets.idx import IDX_FILES, from_values
from jobs.errors import DatasetRefused

IntArray = NDArray[np.integer[Any]]
ByteArray = NDArray[np.uint8]

SYNTHETIC_SHA256: Final = "ab11476982db04c7d1acb7091c06344ab472f7eb69fb38148bca1dc30f78920a"
"""The hash of the whole set. A changed generator is a changed data set."""

SEED: Final = 20_200_813
TRAIN_IMAGES: Final = 60_000
TEST_IMAGES: Final = 10_000

GLYPHS: Final = (
    (  # 0: an oval, a narrow leaning one, one whose ends cross at the top
        "3206 4310 4920 5132 4944 4354 3258 2154 1544 1332 1520 2110 3206",
        "3805 4612 4732 4048 3056 2156 1746 1930 2614 3805",
        "3806 2210 1426 1442 2254 3456 4648 5032 4616 3807 2712",
    ),
    (  # 1: a leaning bar, with a flag, with flag and foot
        "4007 3432 2657",
        "2220 3507 3532 3557",
        "2317 3307 3357 / 2157 4557",
    ),
    (  # 2: with a straight foot, with a loop in the foot, angular
        "1520 2008 3405 4610 4720 3834 1457 5157",
        "1616 2607 4010 4422 3640 2454 1456 1648 2848 4058 5254",
        "1614 3205 4612 4524 1656 4856",
    ),
    (  # 3: round, flat-topped, with a deep waist
        "1612 2805 4309 4620 3929 2631 4134 5044 4455 2859 1450",
        "1608 4608 2928 4430 5042 4355 2859 1352",
        "1709 3805 4516 3628 2231 4236 4848 4157 1455",
    ),
    (  # 4: closed, open, with a short stem
        "4157 4132 4107 1242 5342",
        "1908 1534 4734 / 4508 4332 4257",
        "2207 1434 2239 4834 / 4614 4236 3857",
    ),
    (  # 5: angular, in one movement, with a separate roof
        "4708 2008 1828 3225 4632 4946 4256 2659 1350",
        "4607 2408 1828 3828 4842 4356 3060 1354",
        "2210 1931 3628 4742 4256 2859 1554 / 2210 4906",
    ),
    (  # 6: with a round back, with a straight back, with a small bowl
        "4507 2812 1630 1548 2258 3859 4846 4236 2836 1646",
        "4006 1938 1652 2859 4357 4744 3833 2232",
        "3606 2218 1640 2056 3659 4448 3639 1848",
    ),
    (  # 7: plain, with a bar, with a bent stem
        "1308 5008 4132 2857",
        "1409 4809 3732 2757 / 2433 4833",
        "1515 1608 4909 3726 3142 2957",
    ),
    (  # 8: two rings, one crossing movement, a small ring on a large one
        "3205 4310 4421 3230 2021 2110 3205 / 3230 4637 4750 3259 1750 1837 3230",
        "4612 3205 2012 2222 4238 4650 3260 1850 2238 4224 4612",
        "3406 4212 4122 3326 2521 2612 3406 / 3227 4534 4650 3059 1650 1835 3227",
    ),
    (  # 9: with a straight stem, with a curved stem, with a stem bent back
        "4410 3005 1714 1828 3133 4424 / 4512 4434 4257",
        "4420 3606 2007 1424 2635 4226 4612 4536 3857",
        "4209 2807 2018 2629 3831 4418 / 4514 4646 3659 1857",
    ),
)
"""By digit, three ways to write it: strokes of points ``xxyy`` in a box of 64 x 64 units, y pointing down."""

_COPIES: Final = 8
"""Copies of each glyph with points displaced at random."""

_STRAYS: Final = 256
"""Straight strokes that cross a digit or erase a part of it."""

_SIDE: Final = 80
"""Cells along a distance map: one for each unit of the box, and a margin of 8 around it."""

_CHUNK: Final = 512
"""Images drawn at once: few enough for a processor's cache. It orders the random stream, so it must not change."""


def load_synthetic() -> ImageDataset:
    """Draw the training and the test images.

    Raises:
        DatasetRefused: the bytes drawn here are not those that every other machine draws.
    """
    bits = np.random.PCG64(SEED)
    glyphs = [[_points(stroke) for stroke in way.split("/")] for ways in GLYPHS for way in ways]
    maps = [_distance_map(bits, glyph) for glyph in glyphs for _ in range(_COPIES)]
    strays = [_distance_map(bits, [_integers(bits, (2, 2), 0, 64)]) for _ in range(_STRAYS)]
    cells = np.stack(maps + strays).reshape(-1)
    splits = [_split(cells, count, bits) for count in (TRAIN_IMAGES, TEST_IMAGES)]
    arrays = [values for split in splits for values in split]
    files = [from_values(values, spec) for values, spec in zip(arrays, IDX_FILES, strict=True)]
    data = ImageDataset.from_files(files, name="synthetic", location="drawn by this program")
    if data.sha256 != SYNTHETIC_SHA256:
        raise DatasetRefused(
            f"synthetic: expected sha256 {SYNTHETIC_SHA256[:12]}…, drew {data.sha256[:12]}…; results on it could not "
            f"be compared: report this with your NumPy version ({np.__version__}), or use MNIST"
        )
    return data


def _split(cells: IntArray, count: int, bits: np.random.PCG64) -> tuple[ByteArray, ByteArray]:
    """The next ``count`` images, uint8 (count, 28, 28), and their labels."""
    chunks = [_images(cells, min(_CHUNK, count - start), bits) for start in range(0, count, _CHUNK)]
    images, labels = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return images, labels


def _images(cells: IntArray, count: int, bits: np.random.PCG64) -> tuple[ByteArray, ByteArray]:
    def each(low: int, high: int) -> IntArray:
        """A random number for each image."""
        return _integers(bits, (count, 1), low, high)

    # Where each pixel looks in the map, in 1/256 of a cell, from its distance to the middle in half pixels:
    # scaled, sheared, shifted, and bent by a quadratic term.
    half_pixels = np.arange(-27, 28, 2, dtype=np.int32)
    x, y = np.tile(half_pixels, 28), np.repeat(half_pixels, 28)
    scale, middle = each(240, 430), _SIDE // 2 * 256
    u = (scale + each(-33, 33)) * x + each(-150, 150) * y + each(-2100, 2100) + middle
    v = (scale + each(-33, 33)) * y + each(-90, 90) * x + each(-2100, 2100) + middle
    u += (each(-3000, 3000) * y * y + each(-3000, 3000) * x * y) >> 10
    v += (each(-3000, 3000) * x * x + each(-3000, 3000) * x * y) >> 10
    cell = np.clip(v >> 8, 0, _SIDE - 1) * _SIDE + np.clip(u >> 8, 0, _SIDE - 1)

    def ink(first: int, maps_per_label: int, label: IntArray | int, pen: IntArray, brightness: IntArray) -> IntArray:
        """0…``brightness``: full within ``pen`` (in 1/8 units) of a stroke, none beyond 1.4 times that."""
        chosen = first + label * maps_per_label + each(0, maps_per_label - 1)
        squared = cells[chosen * _SIDE**2 + cell].astype(np.int32)
        full: IntArray = np.clip((2 * pen**2 - squared) * 255 // pen**2, 0, 255)
        return full * brightness >> 8

    digit = each(0, 9)
    per_digit = len(GLYPHS[0]) * _COPIES
    image = ink(0, per_digit, digit, each(16, 36), each(160, 255))
    image = np.maximum(image, ink(10 * per_digit, _STRAYS, 0, each(10, 20), each(0, 200)))
    image = image * (255 - ink(10 * per_digit, _STRAYS, 0, each(10, 20), each(0, 230))) >> 8
    # The byte order in a word is fixed, whatever the machine's is.
    noise = bits.random_raw(count * 98).astype("<u8").view(np.uint8).reshape(count, 784)
    image += noise * each(0, 64) >> 8
    return np.minimum(image, 255).astype(np.uint8).reshape(count, 28, 28), digit[:, 0].astype(np.uint8)


def _points(stroke: str) -> IntArray:
    return np.array([(int(point[:2]), int(point[2:])) for point in stroke.split()], dtype=np.int32)


def _distance_map(bits: np.random.PCG64, strokes: list[IntArray]) -> NDArray[np.uint16]:
    """Squared distance from each cell [y, x] to the strokes, their points displaced at random, in 1/8 units."""
    weight = np.arange(17, dtype=np.int32)[:, None, None]
    ink = []
    for stroke in strokes:
        points = (stroke + 8) * 8 + _integers(bits, stroke.shape, -32, 32)
        ink.append(((points[:-1] * (16 - weight) + points[1:] * weight) >> 4).reshape(-1, 2))
    at = np.arange(_SIDE, dtype=np.int32)[:, None] * 8
    across, down = ((at - axis) ** 2 for axis in np.concatenate(ink).T)
    squared: IntArray = np.min(across[None] + down[:, None], axis=2)
    return np.minimum(squared, 2**16 - 1).astype(np.uint16)


def _integers(bits: np.random.PCG64, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    """Uniform int32 in low…high, both included."""
    words = bits.random_raw(int(np.prod(shape))) >> np.uint64(32)
    return (low + ((words * np.uint64(high - low + 1)) >> np.uint64(32)).astype(np.int32)).reshape(shape)
