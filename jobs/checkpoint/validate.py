"""Are a checkpoint's arrays the ones a trainer expects?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def validate_arrays(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Compare names, types and shapes.

    Raises:
        ValueError: they differ; the message names the first few differences.
    """
    kinds = [{name: f"{array.dtype} {array.shape}" for name, array in arrays.items()} for arrays in (found, expected)]
    there, here = kinds
    wrong = [
        f"{name} is {there.get(name, 'missing')} and should be {here.get(name, 'absent')}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"it is not this model's state: {'; '.join(wrong[:3])}{rest}")
