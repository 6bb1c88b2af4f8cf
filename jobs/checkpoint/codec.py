"""One checkpoint as one safetensors file: no code runs when it is read, and a hash tells whether it is whole."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jobs.checkpoint.metadata import CheckpointMetadata, parse_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT: Final = "mnist-jobs checkpoint 1"
LARGEST_BYTES: Final = 2**28
"""Far more than any recipe's state: nothing larger is opened."""

Arrays = dict[str, "NDArray[Any]"]


class CorruptCheckpoint(ValueError):
    """A file that is no whole checkpoint of ours; the message says why, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    state: CheckpointMetadata
    arrays: Arrays


def encode(state: CheckpointMetadata, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file's content."""
    text = state.to_text()
    # safetensors writes an array's memory as it lies.
    packed = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(packed, metadata={"format": FORMAT, "state": text, "sha256": _digest(text, packed)})


def decode(path: Path) -> Checkpoint:
    """Read a file that holds :func:`encode`'s content.

    Raises:
        CorruptCheckpoint: it cannot be read, is cut short, altered, or something else altogether.
    """
    metadata, arrays = _open(path)
    if metadata.get("format") != FORMAT:
        raise CorruptCheckpoint(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
    text = metadata.get("state", "")
    if metadata.get("sha256") != _digest(text, arrays):
        raise CorruptCheckpoint("its content does not have the hash it was written with")
    try:
        return Checkpoint(state=parse_state(text), arrays=arrays)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"what it says of the run cannot be read ({_one_line(error)})") from error


def _open(path: Path) -> tuple[dict[str, str], Arrays]:
    try:
        status = path.stat()
    except OSError as error:
        raise CorruptCheckpoint(f"it cannot be looked at ({error.strerror or error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise CorruptCheckpoint("it is no regular file")
    if status.st_size > LARGEST_BYTES:
        raise CorruptCheckpoint(f"its {status.st_size} bytes are more than any checkpoint has")
    try:
        # AttributeError: safetensors has types that NumPy has not.
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptCheckpoint(f"it is no whole safetensors file ({error})") from error


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
