"""Finds the marked report lines of a log, whatever else it holds: prefixes, other pods' lines, lines cut short."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.comparison.parse import REPORT_LIMIT, Refused, parse
from jobs.comparison.run import Place
from jobs.report import LINE_MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.comparison.found import Found

DAMAGED_LINE: Final = "report line cut short or damaged"
TOO_LONG: Final = f"report line longer than {REPORT_LIMIT // 1024**2} MiB"

_MARKER: Final = LINE_MARKER.encode()
_DECODER: Final = json.JSONDecoder()


def read_log(stream: BinaryIO, found: Found, *, source: str, path: Path | None) -> None:
    r"""Add the reports in ``stream`` to ``found``; ``path`` is the file to read them from again, if there is one.

    Lines end at ``\n`` alone: a progress bar's ``\r`` belongs to what stands before the marker. A line may carry
    several markers, where a pod died in the middle of one and the next began on the same line.

    Raises:
        BadInput: two different reports claim to be the same attempt of the same run.
        OSError: the stream cannot be read.
    """
    for number, offset, line, whole in _lines(stream):
        # Most lines of most logs are somebody else's.
        at = line.find(_MARKER)
        while at >= 0:
            start = at + len(_MARKER)
            at = line.find(_MARKER, start)
            if not whole and at < 0:
                found.skip(source, TOO_LONG, line=number)
                break
            payload = line[start : at if at >= 0 else None].strip()
            begin = line.index(payload, start)
            _add(payload, found, source=source, path=path, offset=offset + begin, number=number)


def _add(payload: bytes, found: Found, *, source: str, path: Path | None, offset: int, number: int) -> None:
    try:
        report = parse(payload, origin=source)
    except Refused as error:
        shorter = None if error.whole else _first_value(payload)
        if shorter is not None:
            _add(shorter, found, source=source, path=path, offset=offset, number=number)
        else:
            # A whole report of another schema version is not a damaged one, and says so.
            found.skip(source, str(error) if error.whole else DAMAGED_LINE, line=number)
        return
    if path is None:
        place = Place(kept=zlib.compress(payload, 1))
    else:
        place = Place(path=path, offset=offset, size=len(payload))
    found.add(report, source=source, place=place)


def _first_value(payload: bytes) -> bytes | None:
    """The JSON at the start of ``payload`` where another writer's text follows it on the same line."""
    try:
        text = payload.decode("utf-8", errors="surrogateescape")
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    first = text[:end].encode("utf-8", errors="surrogateescape")
    return first if len(first) < len(payload) else None


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes, bool]]:
    """Each line's number, its offset, its first :data:`.parse.REPORT_LIMIT` bytes, and whether that is all of it."""
    number, offset = 1, 0
    while line := stream.readline(REPORT_LIMIT):
        whole = line.endswith(b"\n") or len(line) < REPORT_LIMIT
        yield number, offset, line, whole
        offset += len(line)
        rest = line
        while not whole and rest and not rest.endswith(b"\n"):
            rest = stream.readline(REPORT_LIMIT)
            offset += len(rest)
        number += 1
