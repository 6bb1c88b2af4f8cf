"""The embedded data set: digit-like images drawn from a fixed seed, for a machine with no network.

Runs on different data are never compared, so the set must be the same to the bit wherever it is drawn. Hence
integers only, and randomness only from ``PCG64.random_raw``: NumPy keeps that stream, not what its
distributions make of it.

An image is a stroke glyph, bent, sheared, scaled and moved, in a pen and a contrast of its own, crossed by a
stroke that does not belong to it, partly rubbed out, under noise. That makes it hard enough to tell
a convolutional network from a linear model, and some images are beyond recognition.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.datasets.checksums import SYNTHETIC_SHA256
from jobs.datasets.dataset import ImageDataset, assemble
from jobs.datasets.glyphs import GLYPHS, SIDE, control_points, distance_maps
from jobs.datasets.idx import from_values
from jobs.errors import DatasetRefused

IntArray = NDArray[np.signedinteger[Any]]
ByteArray = NDArray[np.uint8]

SEED: Final = 20_200_813
TRAIN_IMAGES: Final = 60_000
TEST_IMAGES: Final = 10_000

_CHUNK: Final = 512
"""Images drawn at once: few enough for a processor's cache. Part of the recipe, for it orders the random stream."""

_PIXELS: Final = 28 * 28

_ONE: Final = 256
"""Fixed point: one cell of a distance map."""


class _Range(NamedTuple):
    low: int
    high: int


_COPIES: Final = 8
"""Jittered copies of each glyph."""

_JITTER: Final = 4
"""Largest displacement of a control point, in units of the glyph's box of 64."""

# What the middle of an image is seen with: cells of the map to a pixel, x _ONE.
_SCALE: Final = _Range(1000, 1700)
_STRETCH: Final = _Range(-130, 130)
_SHEAR_X: Final = _Range(-520, 520)
_SHEAR_Y: Final = _Range(-260, 260)

_SHIFT: Final = _Range(-3800, 3800)
"""Cells x _ONE: about three pixels either way."""

_FIELDS: Final = 512
"""Displacement fields; an image takes one for x and one for y."""

_FIELD_KNOTS: Final = 4
"""Knots of a field along each side of the image."""

_BEND: Final = 2200
"""Largest displacement by a field, in cells x _ONE."""

_PEN: Final = _Range(14, 34)
"""Half a stroke's width, in quarter cells; a pixel has about 20."""

_FADE: Final = 18
"""Over how many quarter cells a stroke's edge fades."""

_STROKES: Final = 512
"""Stray strokes, to cross a digit with or to rub it out with."""

# Of 255: a digit's brightness, a crossing stroke's, how much is rubbed out, and the largest noise.
_INK: Final = _Range(160, 255)
_STRAY_INK: Final = _Range(0, 200)
_RUBBED: Final = _Range(0, 230)
_NOISE: Final = _Range(0, 64)


class Split(NamedTuple):
    """``images`` uint8 (n, 28, 28) and ``labels`` uint8 (n,)."""

    images: ByteArray
    labels: ByteArray


class _Bank(NamedTuple):
    """What images are put together from."""

    maps: ByteArray  # (map, SIDE * SIDE): distances to ink
    first_map: IntArray  # (10,): where a digit's maps begin
    map_count: IntArray  # (10,)
    fields: IntArray  # (_FIELDS, 784): displacements, x _ONE cells
    strokes: ByteArray  # (_STROKES, 784): 255 on the stroke


def load_synthetic() -> ImageDataset:
    """The set as a trainer takes it.

    Raises:
        DatasetRefused: what was drawn here is not what is drawn everywhere else.
    """
    train, test = draw()
    digits = assemble(
        name="synthetic",
        location="drawn by this program",
        contents=(
            from_values(train.images),
            from_values(train.labels),
            from_values(test.images),
            from_values(test.labels),
        ),
    )
    if digits.sha256 != SYNTHETIC_SHA256:
        raise DatasetRefused(
            f"synthetic: expected sha256 {SYNTHETIC_SHA256[:12]}…, drew {digits.sha256[:12]}…; results on it could not "
            f"be compared: report this with your NumPy version ({np.__version__}), or use MNIST"
        )
    return digits


def draw() -> tuple[Split, Split]:
    """The training and the test set, 60,000 and 10,000 images."""
    bank = _bank()
    return (
        _split(bank, TRAIN_IMAGES, np.random.PCG64(SEED + 1)),
        _split(bank, TEST_IMAGES, np.random.PCG64(SEED + 2)),
    )


def _split(bank: _Bank, count: int, bits: np.random.PCG64) -> Split:
    images = np.empty((count, _PIXELS), dtype=np.uint8)
    labels = np.empty(count, dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, count))
        images[chunk], labels[chunk] = _images(bank, chunk.stop - chunk.start, bits)
    return Split(images.reshape(count, 28, 28), labels)


def _images(bank: _Bank, count: int, bits: np.random.PCG64) -> tuple[ByteArray, ByteArray]:
    """The next ``count`` images, uint8 (count, 784), and their labels."""

    def each(low: int, high: int) -> IntArray:
        return _integers(bits, (count, 1), low, high)

    digit = each(0, 9)
    glyph = bank.first_map[digit] + (each(0, 2**16 - 1) * bank.map_count[digit] >> 16)
    scale = each(*_SCALE)
    x, y = _centred_pixels()
    u = (scale + each(*_STRETCH)) * x + each(*_SHEAR_X) * y
    v = (scale + each(*_STRETCH)) * y + each(*_SHEAR_Y) * x
    # Pixel centres lie at odd halves, hence the division by two.
    u = (u >> 1) + (each(*_SHIFT) + (SIDE // 2) * _ONE) + bank.fields[each(0, _FIELDS - 1)[:, 0]]
    v = (v >> 1) + (each(*_SHIFT) + (SIDE // 2) * _ONE) + bank.fields[each(0, _FIELDS - 1)[:, 0]]
    column = np.clip(u >> 8, 0, SIDE - 1)
    row = np.clip(v >> 8, 0, SIDE - 1)
    distance = bank.maps.reshape(-1)[(glyph * SIDE + row) * SIDE + column].astype(np.int32)
    image = _ink(distance, each(*_PEN)) * each(*_INK)
    image >>= 8
    stray = bank.strokes[each(0, _STROKES - 1)[:, 0]].astype(np.int32) * each(*_STRAY_INK)
    np.maximum(image, stray >> 8, out=image)
    rubbed = bank.strokes[each(0, _STROKES - 1)[:, 0]].astype(np.int32) * each(*_RUBBED)
    image = (image * (255 - (rubbed >> 8))) >> 8
    image += (_bytes(bits, count * _PIXELS).reshape(count, _PIXELS) * each(*_NOISE)) >> 8
    return np.minimum(image, 255).astype(np.uint8), digit[:, 0].astype(np.uint8)


def _ink(distance: IntArray, pen: IntArray) -> IntArray:
    """0…255 from distances in quarter cells: full within ``pen``, fading over about a pixel."""
    ink: IntArray = np.clip((pen + _FADE // 2 - distance) * (255 // _FADE), 0, 255)
    return ink


def _centred_pixels() -> tuple[IntArray, IntArray]:
    """Column and row of each pixel from the middle, in half pixels, int32 (784,) each."""
    half = np.arange(-27, 28, 2, dtype=np.int32)
    return np.tile(half, 28), np.repeat(half, 28)


def _bank() -> _Bank:
    bits = np.random.PCG64(SEED)
    maps: list[ByteArray] = []
    counts: list[int] = []
    for glyphs in GLYPHS:
        for glyph in glyphs:
            jitter = _integers(bits, (_COPIES, control_points(glyph), 2), -_JITTER, _JITTER)
            maps.append(distance_maps(glyph, jitter))
        counts.append(_COPIES * len(glyphs))
    map_count = np.array(counts, dtype=np.int32)
    return _Bank(
        maps=np.concatenate(maps).reshape(-1, SIDE * SIDE),
        first_map=(np.cumsum(map_count) - map_count).astype(np.int32),
        map_count=map_count,
        fields=_fields(bits),
        strokes=_strokes(bits),
    )


def _fields(bits: np.random.PCG64) -> IntArray:
    """Smooth displacements: random at the knots, linear between, int32 (_FIELDS, 784)."""
    knots = _integers(bits, (_FIELDS, _FIELD_KNOTS, _FIELD_KNOTS), -_BEND, _BEND)
    # Pixel p lies p * (knots - 1) / 27 knots along: a whole part and 27ths.
    along = np.arange(28) * (_FIELD_KNOTS - 1)
    left = np.minimum(along // 27, _FIELD_KNOTS - 2)
    part = (along - left * 27).astype(np.int32)
    rows = (knots[:, left] * (27 - part)[:, None] + knots[:, left + 1] * part[:, None]) // 27
    fields = (rows[:, :, left] * (27 - part) + rows[:, :, left + 1] * part) // 27
    flat: IntArray = fields.reshape(_FIELDS, _PIXELS)
    return flat


def _strokes(bits: np.random.PCG64) -> ByteArray:
    """Straight strokes between random points, uint8 (_STROKES, 784), 255 on the stroke."""
    ends = _integers(bits, (_STROKES, 2, 2), 0, 27 * 8)
    pen = _integers(bits, (_STROKES, 1), 5, 10)
    weight = np.arange(33, dtype=np.int32)[:, None]
    ink = (ends[:, :1] * (32 - weight) + ends[:, 1:] * weight) >> 5
    at = np.arange(28, dtype=np.int32) * 8
    strokes = np.empty((_STROKES, _PIXELS), dtype=np.uint8)
    for index in range(_STROKES):
        across = (at[:, None] - ink[index, None, :, 0]) ** 2
        down = (at[:, None] - ink[index, None, :, 1]) ** 2
        squared = np.min(across[None] + down[:, None], axis=2).reshape(-1)
        reach = pen[index, 0] ** 2
        strokes[index] = np.clip((2 * reach - squared) * 255 // reach, 0, 255)
    return strokes


def _integers(bits: np.random.PCG64, shape: tuple[int, ...], low: int, high: int) -> IntArray:
    """Uniform int32 in low…high, both included."""
    words = bits.random_raw(int(np.prod(shape))) >> np.uint64(32)
    return (low + ((words * np.uint64(high - low + 1)) >> np.uint64(32)).astype(np.int32)).reshape(shape)


def _bytes(bits: np.random.PCG64, count: int) -> ByteArray:
    """Uniform bytes; the order of bytes in a word is fixed, not the machine's."""
    words = bits.random_raw((count + 7) // 8)
    return words.astype("<u8").view(np.uint8)[:count]
