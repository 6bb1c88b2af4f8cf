"""Reads untrusted input: bytes of bounded size, strict JSON, a report of a schema version that is understood."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import jiter
from pydantic import ValidationError

from jobs.comparison.text import shortened
from jobs.errors import BadInput
from jobs.io.stdio import escape_control_chars
from jobs.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT_LIMIT: Final = 16 * 1024 * 1024
"""Maximum bytes of one report: an hour of samples ten times a second is half of it."""

_REASON_LIMIT: Final = 300


class InvalidReport(BadInput):
    """The input is no report that can be used; ``valid_json`` says that it is a whole JSON document."""

    def __init__(self, text: str, *, valid_json: bool = False) -> None:
        super().__init__(text)
        self.valid_json = valid_json


def parse(raw: bytes, *, origin: str) -> Report:
    """Turn JSON into a report; ``origin`` names it in errors.

    Booleans and texts are not accepted as numbers, nor numbers as either.

    Raises:
        InvalidReport: not strict JSON, not a report, or of a schema version this release cannot read.
    """
    data = parse_json(raw, origin=origin)
    try:
        return Report.from_data(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        text = f"{origin!r} is no report of a job: {_short(where)}: {_short(first['msg'])}"
        raise InvalidReport(text, valid_json=True) from error


def parse_json(raw: bytes, *, origin: str) -> Any:
    """Decode strict JSON: NaN, infinities, duplicate keys, lone surrogates and over 200 levels are refused.

    Raises:
        InvalidReport: not strict JSON; ``origin`` names it.
    """
    try:
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise InvalidReport(f"{origin!r} is no report of a job: not valid JSON ({_short(error)})") from error


def read_file(path: str, *, origin: str) -> bytes:
    """The whole of a regular file of at most :data:`REPORT_LIMIT` bytes.

    Raises:
        InvalidReport: it cannot be read, is no regular file (a pipe, a device) or is larger.
    """
    raw = read_slice(path, 0, REPORT_LIMIT + 1, origin=origin)
    if len(raw) > REPORT_LIMIT:
        raise InvalidReport(f"{origin!r} is no report of a job: larger than {REPORT_LIMIT // 1024**2} MiB")
    return raw


def read_slice(path: str, offset: int, size: int, *, origin: str) -> bytes:
    """At most ``size`` bytes of a regular file, from ``offset`` on.

    Raises:
        InvalidReport: it cannot be read or is no regular file.
    """
    with open_regular(path, origin=origin) as (stream, file_size):
        stream.seek(offset)
        # Without min, a buffer of the limit's size would be allocated for each small file.
        return stream.read(max(0, min(size, file_size - offset)))


@contextmanager
def open_regular(path: str, *, origin: str) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file to read from, and its size, beyond which nothing should be read.

    Files that the kernel generates, such as its log, have the size 0 and may have no end.

    Raises:
        InvalidReport: it cannot be read, also inside the ``with`` block, or is no regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidReport(f"{origin!r} is not a regular file")
            yield stream, status.st_size
    except OSError as error:
        raise InvalidReport(f"{origin!r} cannot be read ({error.strerror or error}); check its mode") from error


def _short(text: object) -> str:
    return shortened(escape_control_chars(str(text)), _REASON_LIMIT)
