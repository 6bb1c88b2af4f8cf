from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs import datasets as data
from jobs.datasets import synthetic
from jobs.errors import DatasetRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jobs.datasets import ImageDataset

KNOWN_SHA256 = "ab11476982db04c7d1acb7091c06344ab472f7eb69fb38148bca1dc30f78920a"


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return data.load("synthetic")


def test_synthetic_hash_is_the_same_on_every_machine(digits: ImageDataset) -> None:
    assert digits.sha256 == KNOWN_SHA256


def test_synthetic_shapes_are_those_of_mnist(digits: ImageDataset) -> None:
    assert digits.name == "synthetic"
    assert digits.train_images.shape == (60_000, 28, 28)
    assert digits.train_labels.shape == (60_000,)
    assert digits.test_images.shape == (10_000, 28, 28)
    assert digits.test_labels.shape == (10_000,)
    for array in (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels):
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_synthetic_classes_are_about_equally_frequent(digits: ImageDataset) -> None:
    assert all(5700 < count < 6300 for count in np.bincount(digits.train_labels, minlength=10))
    assert all(900 < count < 1100 for count in np.bincount(digits.test_labels, minlength=10))
    assert [file.path for file in digits.files] == [None] * 4


def test_synthetic_test_images_are_not_in_the_training_set(digits: ImageDataset) -> None:
    train = {image.tobytes() for image in digits.train_images}
    assert len(train) == 60_000
    assert not any(image.tobytes() in train for image in digits.test_images)


def test_synthetic_images_have_ink_and_use_the_whole_range(digits: ImageDataset) -> None:
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 255
    # Of each image, the part as bright as ink.
    ink_ratio = (digits.test_images > 128).mean(axis=(1, 2))
    assert 0.05 < ink_ratio.mean() < 0.3
    assert (ink_ratio > 0.005).mean() > 0.99


def test_synthetic_nearest_mean_classifier_is_far_from_perfect(digits: ImageDataset) -> None:
    train = digits.train_images.reshape(-1, 784).astype(np.float32)
    means = np.stack([train[digits.train_labels == digit].mean(axis=0) for digit in range(10)])
    test = digits.test_images.reshape(-1, 784).astype(np.float32)
    nearest = np.argmin((means**2).sum(axis=1) - 2 * test @ means.T, axis=1)
    assert 0.40 < (nearest == digits.test_labels).mean() < 0.75


def test_load_synthetic_changed_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "TRAIN_IMAGES", 10)
    monkeypatch.setattr(synthetic, "TEST_IMAGES", 10)
    with pytest.raises(DatasetRefused, match=r"synthetic: expected sha256 .*could not be compared"):
        data.load("synthetic")


def test_generator_source_has_integer_arithmetic_only() -> None:
    for node in ast.walk(ast.parse(inspect.getsource(synthetic))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not isinstance(node, ast.Div)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("float")
            assert node.attr not in {"sqrt", "sin", "cos", "exp", "mean", "default_rng", "Generator"}


def test_distance_map_vertical_stroke_is_exact_across_it() -> None:
    class NoDisplacement:
        def random_raw(self, count: int) -> NDArray[np.uint64]:
            return np.full(count, 2**63, dtype=np.uint64)

    stroke = np.array([[32, 0], [32, 64]], dtype=np.int32)
    squared = synthetic._distance_map(NoDisplacement(), [stroke])  # type: ignore[arg-type]
    row = squared[40].astype(int)
    assert row[40] == 0
    assert row[40 + 3] == row[40 - 3] == (3 * 8) ** 2
    assert squared.max() == 2**16 - 1


@pytest.mark.parametrize("low_high", [(0, 9), (-32, 32), (0, 0)])
def test_integers_cover_exactly_the_range(low_high: tuple[int, int]) -> None:
    low, high = low_high
    values = synthetic._integers(np.random.PCG64(1), (2000,), low, high)
    assert set(values.tolist()) == set(range(low, high + 1))
