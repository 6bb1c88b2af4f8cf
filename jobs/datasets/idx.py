"""The four IDX files of a dataset, and their strict reader.

An IDX file has two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit number,
and the values. Whether it is gzip-compressed is decided by its first bytes, not its name.
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
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast

import numpy as np

from jobs.errors import DatasetRefused
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class IdxFileSpec:
    """One of a dataset's four files: its name and content type."""

    stem: str
    kind: Literal["images", "labels"]
    dimensions: int

    @property
    def file_names(self) -> tuple[str, ...]:
        """The accepted names, in both common spellings. The first one present is read: raw before gz."""
        dotted = self.stem.replace("-idx", ".idx")
        return (self.stem, dotted, f"{self.stem}.gz", f"{dotted}.gz")


TRAIN_IMAGES: Final = IdxFileSpec(stem="train-images-idx3-ubyte", kind="images", dimensions=3)
TRAIN_LABELS: Final = IdxFileSpec(stem="train-labels-idx1-ubyte", kind="labels", dimensions=1)
TEST_IMAGES: Final = IdxFileSpec(stem="t10k-images-idx3-ubyte", kind="images", dimensions=3)
TEST_LABELS: Final = IdxFileSpec(stem="t10k-labels-idx1-ubyte", kind="labels", dimensions=1)
IDX_FILES: Final = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
FILE_NAMES_TEXT: Final = ", ".join(f"{spec.stem}[.gz]" for spec in IDX_FILES)

MNIST_SHA256: Final = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of MNIST's four files, decompressed, so that a different compression does not matter."""

MAX_CONTENT_BYTES: Final = 2**30
"""A file that claims or unpacks to more is refused."""

_UNSIGNED_BYTE: Final = 0x08
_GZIP_MAGIC: Final = b"\x1f\x8b"
_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class IdxFile:
    """One file's values, uint8 (n, 28, 28) or (n,), read-only, with the size and SHA-256 of its content.

    ``path`` is ``None`` for values that were drawn, not read.
    """

    name: str
    values: NDArray[np.uint8]
    content_bytes: int
    sha256: str
    path: Path | None


def header(shape: tuple[int, ...]) -> bytes:
    """The bytes before the values of an unsigned-byte array."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _UNSIGNED_BYTE, len(shape), *shape)


def from_values(values: NDArray[Any], spec: IdxFileSpec, path: Path | None = None) -> IdxFile:
    """The file that holds ``values``."""
    values = np.ascontiguousarray(values, dtype=np.uint8)
    values.flags.writeable = False
    start = header(values.shape)
    digest = hashlib.sha256(start)
    digest.update(values.data)
    content_bytes = len(start) + values.size
    return IdxFile(name=spec.stem, values=values, content_bytes=content_bytes, sha256=digest.hexdigest(), path=path)


def read(path: Path, spec: IdxFileSpec) -> IdxFile:
    """Read and check one file.

    Memory is limited by the file's actual size and by :data:`MAX_CONTENT_BYTES`, whatever its header says.

    Raises:
        DatasetRefused: the file cannot be read, is damaged or is not what ``spec`` asks for.
    """
    header_bytes = 4 + 4 * spec.dimensions
    with _open_content(path) as (stream, raw_bytes):
        start = stream.read(header_bytes)
        if len(start) < header_bytes:
            raise _refused(path, f"an IDX header of {header_bytes} bytes", f"a file of {len(start)} bytes")
        shape = _checked_shape(start, spec, path)
        wanted = math.prod(shape)
        if raw_bytes is not None and raw_bytes != header_bytes + wanted:
            sizes = _shape_text(shape)
            raise _refused(path, f"{header_bytes + wanted:,} bytes for {sizes} values", f"{raw_bytes:,} bytes")
        values = _read_values(stream, wanted, path)
    array = np.frombuffer(values, dtype=np.uint8).reshape(shape)
    if spec.kind == "labels":
        wrong = np.flatnonzero(array > 9)
        if wrong.size:
            found = f"{array[wrong[0]]} at position {wrong[0]:,}"
            raise _refused(path, "labels 0 to 9", found, "give a set of the ten digits")
    return from_values(array, spec, path)


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's content, unpacked.

    Raises:
        DatasetRefused: it cannot be read or unpacked, or is larger than :data:`MAX_CONTENT_BYTES`.
    """
    digest = hashlib.sha256()
    total = 0
    with _open_content(path) as (stream, _):
        while block := stream.read(_BLOCK_BYTES):
            total += len(block)
            if total > MAX_CONTENT_BYTES:
                raise _refused(path, f"at most {MAX_CONTENT_BYTES:,} bytes", "more")
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _open_content(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """The content of a file as a stream, and its size where that is known before reading (not for gzip)."""
    try:
        # Before opening: opening a pipe would block.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(path, "a file", "something else", "give a folder of IDX files")
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            size = file.seek(0, 2)
            file.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=file) as content:
                    yield cast("BinaryIO", content), None
            else:
                yield file, size
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _refused(path, "a whole gzip file", f"damage ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetRefused(
            f"{printable_path(path)}: cannot be read ({reason}); check the file's permissions"
        ) from error


def _checked_shape(start: bytes, spec: IdxFileSpec, path: Path) -> tuple[int, ...]:
    expected = bytes((0, 0, _UNSIGNED_BYTE, spec.dimensions))
    if start[:4] != expected:
        raise _refused(path, f"an IDX file of {spec.kind} (magic {expected.hex()})", f"magic {start[:4].hex()}")
    shape = struct.unpack(f">{spec.dimensions}I", start[4:])
    if spec.kind == "images" and shape[1:] != (28, 28):
        raise _refused(path, "images of 28 x 28 pixels", _shape_text(shape[1:]), "give a set of 28 x 28 images")
    if shape[0] == 0:
        raise _refused(path, f"at least one of its {spec.kind}", "none", "give a set that is not empty")
    if math.prod(shape) > MAX_CONTENT_BYTES:
        found = f"{math.prod(shape):,} bytes in the header"
        raise _refused(path, f"at most {MAX_CONTENT_BYTES:,} bytes of {spec.kind}", found)
    return shape


def _read_values(stream: BinaryIO, wanted: int, path: Path) -> bytearray:
    # The buffer grows with the bytes read, since a header may claim more than the file has.
    values = bytearray()
    while len(values) < wanted:
        block = stream.read(min(_BLOCK_BYTES, wanted - len(values)))
        if not block:
            raise _refused(path, f"{wanted:,} bytes of values", f"{len(values):,} bytes")
        values += block
    # Reading to the end also makes gzip check its checksum.
    if stream.read(1):
        raise _refused(path, f"{wanted:,} bytes of values", "more bytes after them")
    return values


def printable_path(path: Path) -> str:
    """A path on one line, even one with a line break in its name."""
    return escape_control_chars(str(path))


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _refused(
    path: Path, expected: str, found: str, next_step: str = "copy the file again from its source"
) -> DatasetRefused:
    return DatasetRefused(f"{printable_path(path)}: expected {expected}, found {found}; {next_step}")
