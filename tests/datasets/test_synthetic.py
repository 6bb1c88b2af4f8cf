from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs import datasets as data
from jobs.datasets import glyphs, synthetic
from jobs.errors import DatasetRefused

if TYPE_CHECKING:
    from types import ModuleType

KNOWN_SHA256 = "a8351187c5f4cb9ba548ee92fe81939af78b8914a2b4963da1eca77f6e7647af"


@pytest.fixture(scope="module")
def digits() -> data.DigitSet:
    return data.load("synthetic")


def test_the_set_is_the_same_everywhere(digits: data.DigitSet) -> None:
    assert digits.sha256 == KNOWN_SHA256


def test_shapes_are_mnists(digits: data.DigitSet) -> None:
    assert digits.name == "synthetic"
    assert digits.train_images.shape == (60_000, 28, 28)
    assert digits.train_labels.shape == (60_000,)
    assert digits.test_images.shape == (10_000, 28, 28)
    assert digits.test_labels.shape == (10_000,)
    for array in (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels):
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_classes_are_about_equally_frequent(digits: data.DigitSet) -> None:
    description = data.describe(digits)
    assert all(5700 < count < 6300 for count in description.train_class_counts)
    assert all(900 < count < 1100 for count in description.test_class_counts)
    assert [file.source for file in description.files] == [None] * 4


def test_no_test_image_is_a_training_image(digits: data.DigitSet) -> None:
    train = {image.tobytes() for image in digits.train_images}
    assert len(train) == 60_000
    assert not any(image.tobytes() in train for image in digits.test_images)


def test_images_have_digits_and_use_the_whole_range(digits: data.DigitSet) -> None:
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 255
    # Of each image, the part as bright as ink.
    ink_ratio = (digits.test_images > 128).mean(axis=(1, 2))
    assert 0.05 < ink_ratio.mean() < 0.3
    assert (ink_ratio > 0.005).mean() > 0.99


def test_a_cheap_classifier_is_far_from_solving_it(digits: data.DigitSet) -> None:
    train = digits.train_images.reshape(-1, 784).astype(np.float32)
    means = np.stack([train[digits.train_labels == digit].mean(axis=0) for digit in range(10)])
    test = digits.test_images.reshape(-1, 784).astype(np.float32)
    nearest = np.argmin((means**2).sum(axis=1) - 2 * test @ means.T, axis=1)
    assert 0.40 < (nearest == digits.test_labels).mean() < 0.75


def test_another_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "TRAIN_IMAGES", 10)
    monkeypatch.setattr(synthetic, "TEST_IMAGES", 10)
    with pytest.raises(DatasetRefused, match=r"synthetic: expected sha256 .*could not be compared"):
        data.load("synthetic")


@pytest.mark.parametrize("module", [synthetic, glyphs])
def test_the_generator_computes_with_integers_alone(module: ModuleType) -> None:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not isinstance(node, ast.Div)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("float")
            assert node.attr not in {"sqrt", "sin", "cos", "exp", "mean", "default_rng", "Generator"}


def test_distances_are_exact_on_a_straight_stroke() -> None:
    stroke = (glyphs.Stroke("line", ((32, 0), (32, 64))),)
    (distances,) = glyphs.distance_maps(stroke, np.zeros((1, 2, 2), dtype=np.int64))
    middle = glyphs.SIDE // 2
    row = distances[middle].astype(int)
    assert row[middle] == 0
    assert row[middle + 10] == row[middle - 10] == 10 * glyphs.CELL_STEPS
    assert distances.max() == 255
