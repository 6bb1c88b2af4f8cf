"""What the trainers are given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.datasets.idx_files import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from jobs.datasets.idx import IdxArray


@dataclass(frozen=True, kw_only=True)
class ContentFile:
    """One file of a set: where it lies (``synthetic`` has no files), and size and hash of its IDX content."""

    name: str
    source: str | None
    content_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset:
    """Images uint8 (n, 28, 28), labels uint8 (n,) with values 0…9; C-contiguous and read-only.

    ``sha256`` is the hash of the four files' content hashes, as hexadecimal text, joined in the order of
    ``files``: two sets with the same value are the same data. ``location`` is for people.
    """

    name: str
    sha256: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    location: str
    files: tuple[ContentFile, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """A set in figures; ``train_class_counts[d]`` is the number of training images of digit ``d``."""

    name: str
    sha256: str
    location: str
    train_examples: int
    test_examples: int
    train_class_counts: tuple[int, ...]
    test_class_counts: tuple[int, ...]
    files: tuple[ContentFile, ...]


def describe(digits: ImageDataset) -> Description:
    return Description(
        name=digits.name,
        sha256=digits.sha256,
        location=digits.location,
        train_examples=len(digits.train_labels),
        test_examples=len(digits.test_labels),
        train_class_counts=_class_counts(digits.train_labels),
        test_class_counts=_class_counts(digits.test_labels),
        files=digits.files,
    )


def assemble(*, name: str, location: str, contents: tuple[IdxArray, IdxArray, IdxArray, IdxArray]) -> ImageDataset:
    """Put a set together from its four parts, in the order of :data:`ROLES`."""
    train_images, train_labels, test_images, test_labels = (content.values for content in contents)
    return ImageDataset(
        name=name,
        sha256=joined_sha256(content.sha256 for content in contents),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        location=location,
        files=tuple(
            ContentFile(
                name=role.stem,
                source=None if content.path is None else str(content.path),
                content_bytes=content.content_bytes,
                sha256=content.sha256,
            )
            for role, content in zip(ROLES, contents, strict=True)
        ),
    )


def joined_sha256(hashes: Iterable[str]) -> str:
    """The hash that names a whole set."""
    return hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()


def _class_counts(labels: NDArray[np.uint8]) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(labels, minlength=10))
