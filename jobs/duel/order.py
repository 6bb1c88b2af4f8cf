"""The order of the frameworks within a block, drawn from a seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jobs.choices import FRAMEWORKS

if TYPE_CHECKING:
    from jobs.choices import FrameworkName


def order_in_block(seed: str, block: int) -> tuple[FrameworkName, FrameworkName]:
    """Which framework runs first in ``block`` and which second: a fair coin, independent for each block.

    It depends on ``seed`` and ``block`` alone, so pods that know nothing of one another draw it alike.
    """
    first, second = FRAMEWORKS
    bit = hashlib.sha256(f"{seed}:{block}".encode()).digest()[0] & 1
    return (second, first) if bit else (first, second)
