"""The four files of a set: what each is called and holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class IdxFileSpec:
    """One of the four files of a set: what it is called and how many dimensions it has."""

    stem: str
    kind: str
    dimensions: int

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names it is found under, the first found is read: both spellings in use, raw before gz."""
        dotted = self.stem.replace("-idx", ".idx")
        return (self.stem, dotted, f"{self.stem}.gz", f"{dotted}.gz")


TRAIN_IMAGES: Final = IdxFileSpec(stem="train-images-idx3-ubyte", kind="images", dimensions=3)
TRAIN_LABELS: Final = IdxFileSpec(stem="train-labels-idx1-ubyte", kind="labels", dimensions=1)
TEST_IMAGES: Final = IdxFileSpec(stem="t10k-images-idx3-ubyte", kind="images", dimensions=3)
TEST_LABELS: Final = IdxFileSpec(stem="t10k-labels-idx1-ubyte", kind="labels", dimensions=1)

ROLES: Final = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
"""In the order in which their hashes are joined."""

FILE_NAMES_TEXT: Final = ", ".join(f"{role.stem}[.gz]" for role in ROLES)
