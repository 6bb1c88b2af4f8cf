"""Reads safetensors files of unknown origin. Reading them runs no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES: Final = 2**28
"""Larger files are not opened. Any recipe's weights and state are much smaller."""


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The metadata and the arrays by name of a safetensors file.

    Raises:
        ValueError: it cannot be read, is larger than :data:`MAX_BYTES` or is no complete safetensors file. The
            message says why, without the file's name.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"it has {size} bytes; at most {MAX_BYTES} are read")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    # AttributeError and TypeError: a type of safetensors that NumPy lacks.
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no complete safetensors file ({error})") from error
