from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.datasets import idx
from jobs.datasets.idx import TRAIN_IMAGES, TRAIN_LABELS, IdxFileSpec
from jobs.errors import DatasetRefused
from jobs.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


@contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some-file"
        path.write_bytes(content)
        yield path


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def encoded(values: NDArray[np.uint8]) -> bytes:
    return idx.header(values.shape) + values.tobytes()


def refusal(content: bytes, spec: IdxFileSpec = TRAIN_IMAGES) -> str:
    """The message with which ``content`` is refused, without the folder in front."""
    with file_of(content) as path, pytest.raises(DatasetRefused) as caught:
        idx.read(path, spec)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert caught.value.exit_code is ExitCode.DATASET_REFUSED
    return message.removeprefix(f"{path}: ")


patient = settings(deadline=None)
"""Files and compression take their time on a busy machine."""

packing = st.sampled_from([bytes, gzip.compress])


@patient
@given(count=st.integers(1, 20), seed=st.integers(0, 99), pack=packing)
def test_read_images_returns_what_was_written(count: int, seed: int, pack: Callable[[bytes], bytes]) -> None:
    values = images(count, seed)
    content = encoded(values)
    with file_of(pack(content)) as path:
        read = idx.read(path, TRAIN_IMAGES)
    np.testing.assert_array_equal(read.values, values)
    assert read.values.dtype == np.uint8
    assert read.values.flags.c_contiguous
    assert not read.values.flags.writeable
    assert read.sha256 == hashlib.sha256(content).hexdigest()
    assert read.content_bytes == len(content)


@patient
@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=50), pack=packing)
def test_read_labels_returns_what_was_written(labels: list[int], pack: Callable[[bytes], bytes]) -> None:
    values = np.array(labels, dtype=np.uint8)
    with file_of(pack(encoded(values))) as path:
        read = idx.read(path, TRAIN_LABELS)
    np.testing.assert_array_equal(read.values, values)


@patient
@given(data=st.data(), pack=packing)
def test_read_truncated_file_is_refused(data: st.DataObject, pack: Callable[[bytes], bytes]) -> None:
    content = pack(encoded(images(3)))
    refusal(content[: data.draw(st.integers(0, len(content) - 1))])


@patient
@given(position=st.integers(0, 15), flip=st.integers(1, 255), pack=packing)
def test_read_changed_header_is_refused(position: int, flip: int, pack: Callable[[bytes], bytes]) -> None:
    content = bytearray(encoded(images(3)))
    content[position] ^= flip
    refusal(pack(bytes(content)))


@patient
@given(data=st.data())
def test_read_arbitrary_bytes_are_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08", idx.header((2, 28, 28)), idx.header((3,))]))
    content = start + data.draw(st.binary(max_size=200))
    with file_of(content) as path:
        for spec in (TRAIN_IMAGES, TRAIN_LABELS):
            try:
                idx.read(path, spec)
            except DatasetRefused as error:
                assert "\n" not in str(error)  # noqa: PT017 - refused or read, both are right


@patient
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_read_gzip_with_a_changed_byte_is_refused_or_the_same(position: int, flip: int) -> None:
    content = encoded(images(3))
    packed = bytearray(gzip.compress(content))
    packed[position % len(packed)] ^= flip
    with file_of(bytes(packed)) as path:
        try:
            # A gzip header has a time and flags that do not touch the content.
            assert idx.read(path, TRAIN_IMAGES).sha256 == hashlib.sha256(content).hexdigest()
        except DatasetRefused as error:
            assert str(path) in str(error)  # noqa: PT017


def test_read_messages_say_what_was_expected_and_found() -> None:
    good = encoded(images(2))
    again = "copy the file again from its source"
    assert refusal(b"") == f"expected an IDX header of 16 bytes, found a file of 0 bytes; {again}"
    assert refusal(good[:7]) == f"expected an IDX header of 16 bytes, found a file of 7 bytes; {again}"
    assert (
        refusal(b"\x00\x00\x0d\x03" + good[4:])
        == f"expected an IDX file of images (magic 00000803), found magic 00000d03; {again}"
    )
    assert refusal(good[:-1]) == f"expected 1,584 bytes for 2 x 28 x 28 values, found 1,583 bytes; {again}"
    assert refusal(good + b"x") == f"expected 1,584 bytes for 2 x 28 x 28 values, found 1,585 bytes; {again}"
    assert refusal(gzip.compress(good[:-1])) == f"expected 1,568 bytes of values, found 1,567 bytes; {again}"
    assert (
        refusal(gzip.compress(good + b"x")) == f"expected 1,568 bytes of values, found more bytes after them; {again}"
    )
    assert "expected images of 28 x 28 pixels, found 28 x 29; give" in refusal(idx.header((1, 28, 29)) + bytes(28 * 29))
    assert "expected at least one of its images, found none; give" in refusal(idx.header((0, 28, 28)))
    assert "expected labels 0 to 9, found 10 at position 1; give" in refusal(
        encoded(np.array([9, 10], np.uint8)), TRAIN_LABELS
    )


def test_read_labels_instead_of_images_is_refused() -> None:
    assert "(magic 00000803), found magic 00000801" in refusal(encoded(np.zeros(40, np.uint8)))


def test_read_gzip_with_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(encoded(images(2))))
    packed[-8] ^= 1
    assert refusal(bytes(packed)).startswith("expected a whole gzip file, found damage (CRC check failed")


def test_read_header_with_huge_size_allocates_little() -> None:
    claims_a_gigabyte = struct.pack(">4B3I", 0, 0, 8, 3, 1_300_000, 28, 28)
    claims_more = struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28)
    tracemalloc.start()
    try:
        for start in (claims_a_gigabyte, claims_more):
            refusal(start)
            refusal(gzip.compress(start + bytes(1000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_read_gzip_larger_than_its_header_stops_early() -> None:
    bomb = gzip.compress(idx.header((2, 28, 28)) + bytes(200_000_000), compresslevel=1)
    tracemalloc.start()
    try:
        assert "found more bytes after them" in refusal(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_content_sha256_stops_at_the_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "MAX_CONTENT_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(DatasetRefused, match="expected at most 1,000 bytes, found more"):
        idx.content_sha256(path)


def test_read_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="cannot be read \\(No such file or directory\\)"):
        idx.read(tmp_path / "none", TRAIN_IMAGES)


def test_read_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="expected a file, found something else"):
        idx.read(tmp_path, TRAIN_IMAGES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_read_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetRefused, match="expected a file, found something else"):
        idx.read(tmp_path / "pipe", TRAIN_IMAGES)


def test_read_path_with_a_line_break_gives_a_one_line_message(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused) as caught:
        idx.read(tmp_path / "a\nb", TRAIN_IMAGES)
    assert "\n" not in str(caught.value)


def test_from_values_hash_is_that_of_the_file() -> None:
    values = images(4)
    assert idx.from_values(values, TRAIN_IMAGES).sha256 == hashlib.sha256(encoded(values)).hexdigest()
