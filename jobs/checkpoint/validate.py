"""Checks that a checkpoint's arrays are the ones a trainer expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def validate_arrays(saved: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Compare names, types and shapes.

    Raises:
        ValueError: they differ; the message names the first few differences.
    """
    is_kind, should_be = (
        {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()} for arrays in (saved, expected)
    )
    wrong = [
        f"{name} is {is_kind.get(name, 'missing')} and should be {should_be.get(name, 'absent')}"
        for name in sorted({*is_kind, *should_be})
        if is_kind.get(name) != should_be.get(name)
    ]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"it is not this model's state: {'; '.join(wrong[:3])}{rest}")
