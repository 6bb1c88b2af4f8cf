"""Whole numbers in text of unknown origin, such as an environment variable."""

from __future__ import annotations

import re
from typing import Final

LARGEST: Final = 2**31 - 1
"""The largest that C's ``int`` holds, which takes these numbers in the end."""


def whole_number(text: str) -> int | None:
    """The number that ``text`` writes; ``None`` if it is none from 0 to :data:`LARGEST`.

    ``int`` alone would accept digits of other scripts, and raise an error for those of a very long text.
    """
    number = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None
    return number if number is not None and number <= LARGEST else None
