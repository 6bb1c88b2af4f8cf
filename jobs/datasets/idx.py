"""The one reader of IDX files, strict: a file is exactly what its place asks for, or it is refused.

The format: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit
number, then the values. A file may be raw or gzip-compressed; its first bytes tell, not its name.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import stat
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np

from jobs.errors import DatasetRefused
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jobs.datasets.idx_files import IdxFileSpec

MAX_CONTENT_BYTES: Final = 2**30
"""More than any set of digits in use; a file that claims or unpacks to more is refused, not loaded."""

_UNSIGNED_BYTE: Final = 0x08
_GZIP_MAGIC: Final = b"\x1f\x8b"
_BLOCK_BYTES: Final = 2**20
_NEXT_STEP: Final = "copy the file again from its source"


@dataclass(frozen=True, kw_only=True, eq=False)
class IdxArray:
    """One file's values, uint8 (n, 28, 28) or (n,), read-only, with its content's size and SHA-256.

    ``path`` is ``None`` for values that were drawn, not read.
    """

    values: NDArray[np.uint8]
    content_bytes: int
    sha256: str
    path: Path | None


def header(shape: tuple[int, ...]) -> bytes:
    """The bytes before the values of an unsigned-byte array."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _UNSIGNED_BYTE, len(shape), *shape)


def from_values(values: NDArray[Any]) -> IdxArray:
    """As if ``values`` had been written to a file and read again."""
    values = np.ascontiguousarray(values, dtype=np.uint8)
    values.flags.writeable = False
    start = header(values.shape)
    digest = hashlib.sha256(start)
    digest.update(values.data)
    return IdxArray(values=values, content_bytes=len(start) + values.size, sha256=digest.hexdigest(), path=None)


def read(path: Path, role: IdxFileSpec) -> IdxArray:
    """Read and check one file.

    Memory is bounded by what the file really holds, and by :data:`MAX_CONTENT_BYTES`, whatever its header
    says.

    Raises:
        DatasetRefused: the file cannot be read, is damaged or is not what ``role`` asks for.
    """
    with _opened(path) as (stream, raw_bytes):
        start = _exactly(stream, 4 + 4 * role.dimensions, path)
        shape = _checked_shape(start, role, path)
        wanted = math.prod(shape)
        if raw_bytes is not None and raw_bytes != len(start) + wanted:
            raise _refused(path, f"{len(start) + wanted:,} bytes for {_text(shape)} values", f"{raw_bytes:,} bytes")
        values = _values(stream, wanted, path)
    digest = hashlib.sha256(start)
    digest.update(values)
    array = np.frombuffer(values, dtype=np.uint8).reshape(shape)
    array.flags.writeable = False
    if role.kind == "labels":
        _check_labels(array, path)
    return IdxArray(values=array, content_bytes=len(start) + wanted, sha256=digest.hexdigest(), path=path)


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's content, unpacked, whatever it is.

    Raises:
        DatasetRefused: it cannot be read or unpacked, or is larger than :data:`MAX_CONTENT_BYTES`.
    """
    digest = hashlib.sha256()
    total = 0
    with _opened(path) as (stream, _):
        while block := stream.read(_BLOCK_BYTES):
            total += len(block)
            if total > MAX_CONTENT_BYTES:
                raise _refused(path, f"at most {MAX_CONTENT_BYTES:,} bytes", "more")
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """The content of a file as a stream, and its size where that is known before reading (not for gzip)."""
    try:
        # A pipe would be waited for without end, so this comes before opening.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _refused(path, "a file", "something else", "give a folder of IDX files")
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            size = file.seek(0, 2)
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast("BinaryIO", unpacked), None
            else:
                yield file, size
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _refused(path, "a whole gzip file", f"damage ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetRefused(f"{shown(path)}: cannot be read ({reason}); check the file's permissions") from error


def _exactly(stream: BinaryIO, count: int, path: Path) -> bytes:
    start = stream.read(count)
    if len(start) < count:
        raise _refused(path, f"an IDX header of {count} bytes", f"a file of {len(start)} bytes")
    return start


def _checked_shape(start: bytes, role: IdxFileSpec, path: Path) -> tuple[int, ...]:
    expected = bytes((0, 0, _UNSIGNED_BYTE, role.dimensions))
    if start[:4] != expected:
        raise _refused(path, f"an IDX file of {role.kind} (magic {expected.hex()})", f"magic {start[:4].hex()}")
    shape = struct.unpack(f">{role.dimensions}I", start[4:])
    if role.kind == "images" and shape[1:] != (28, 28):
        raise _refused(path, "images of 28 x 28 pixels", _text(shape[1:]), "give a set of 28 x 28 images")
    if shape[0] == 0:
        raise _refused(path, f"at least one of its {role.kind}", "none", "give a set that is not empty")
    if math.prod(shape) > MAX_CONTENT_BYTES:
        raise _refused(
            path, f"at most {MAX_CONTENT_BYTES:,} bytes of {role.kind}", f"{math.prod(shape):,} bytes in the header"
        )
    return shape


def _values(stream: BinaryIO, wanted: int, path: Path) -> bytearray:
    # Grown as the bytes come, never allocated by what a header claims.
    values = bytearray()
    while len(values) < wanted:
        block = stream.read(min(_BLOCK_BYTES, wanted - len(values)))
        if not block:
            raise _refused(path, f"{wanted:,} bytes of values", f"{len(values):,} bytes")
        values += block
    # Reading on to the end is also what makes gzip check its checksum.
    if stream.read(1):
        raise _refused(path, f"{wanted:,} bytes of values", "more bytes after them")
    return values


def _check_labels(labels: NDArray[np.uint8], path: Path) -> None:
    wrong = np.flatnonzero(labels > 9)
    if wrong.size:
        raise _refused(
            path, "labels 0 to 9", f"{labels[wrong[0]]} at position {wrong[0]:,}", "give a set of the ten digits"
        )


def shown(path: Path) -> str:
    """A path in one line, even one with a line break in its name."""
    return escape_control_chars(str(path))


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _refused(path: Path, expected: str, found: str, next_step: str = _NEXT_STEP) -> DatasetRefused:
    return DatasetRefused(f"{shown(path)}: expected {expected}, found {found}; {next_step}")
