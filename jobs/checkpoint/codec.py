"""Encodes a checkpoint as one safetensors file. Reading it runs no code; a hash shows whether it is complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors.numpy import save

from jobs.checkpoint.metadata import CheckpointMetadata
from jobs.io.safetensors_file import read_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT: Final = "mnist-jobs checkpoint 2"


class CorruptCheckpoint(ValueError):
    """A file is no complete checkpoint of this project; the message says why, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    path: Path
    metadata: CheckpointMetadata
    arrays: dict[str, NDArray[Any]]


def encode(metadata: CheckpointMetadata, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file's content."""
    text = metadata.model_dump_json()
    # safetensors writes an array's memory and ignores its order.
    packed = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(packed, metadata={"format": FORMAT, "run": text, "sha256": _digest(text, packed)})


def decode(path: Path) -> Checkpoint:
    """Read a file that holds :func:`encode`'s content.

    Raises:
        CorruptCheckpoint: it cannot be read, is cut short or altered, or is no checkpoint.
    """
    try:
        header, arrays = read_safetensors(path)
    except ValueError as error:
        raise CorruptCheckpoint(str(error)) from error
    if header.get("format") != FORMAT:
        raise CorruptCheckpoint(f"its format is {header.get('format')!r}, not {FORMAT!r}")
    text = header.get("run", "")
    if header.get("sha256") != _digest(text, arrays):
        raise CorruptCheckpoint("its content does not have the hash it was written with")
    try:
        metadata = CheckpointMetadata.model_validate_json(text, strict=True)
    except ValueError as error:
        raise CorruptCheckpoint(f"its metadata cannot be read ({' '.join(str(error).split())[:200]})") from error
    return Checkpoint(path=path, metadata=metadata, arrays=arrays)


def validate_arrays(saved: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Check that a checkpoint's arrays have the names, types and shapes that a trainer expects.

    Raises:
        ValueError: they differ; the message names the first few differences.
    """
    actual, required = (
        {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()} for arrays in (saved, expected)
    )
    wrong = [
        f"{name} is {actual.get(name, 'missing')} and should be {required.get(name, 'absent')}"
        for name in sorted({*actual, *required})
        if actual.get(name) != required.get(name)
    ]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"it is not this model's state: {'; '.join(wrong[:3])}{rest}")


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
