"""Finds the marked report lines of a log, whatever else it holds: prefixes, other pods' lines, lines cut short."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.comparison.input.parse import REPORT_LIMIT, InvalidReport, parse
from jobs.comparison.input.run_summary import ReportLocation
from jobs.report import LINE_MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.comparison.input.report_collection import ReportCollection

LOG_LIMIT: Final = 16 * 1024**3
"""Bytes of one log at most: a million report lines. Something without an end is a mistake, and is not waited for."""

DAMAGED_LINE: Final = "report line cut short or damaged"
TOO_LONG: Final = f"report line longer than {REPORT_LIMIT // 1024**2} MiB"
TOO_LARGE: Final = (
    f"larger than {LOG_LIMIT // 1024**3} GiB; give its lines with {LINE_MARKER.strip()} alone, as grep -a finds them"
)

_MARKER: Final = LINE_MARKER.encode()
_DECODER: Final = json.JSONDecoder()


def read_log(
    stream: BinaryIO, found: ReportCollection, *, source: str, path: Path | None = None, size: int | None = None
) -> None:
    r"""Add the reports in ``stream`` to ``found``; ``path`` is the file to read them from again, if there is one.

    Lines end at ``\n`` alone: a progress bar's ``\r`` belongs to what stands before the marker. A line may carry
    several markers, where a pod died in the middle of one and the next began on the same line, and may be of any
    length. Nothing is read beyond ``size``, or beyond :data:`LOG_LIMIT` where none is given.

    Raises:
        BadInput: two different reports claim to be the same attempt of the same run, or the log is too large.
        OSError: the stream cannot be read.
    """
    if size is not None and size > LOG_LIMIT:
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")
    for number, offset, raw in _marked(stream, LOG_LIMIT if size is None else size):
        if len(raw) > REPORT_LIMIT:
            found.skip(source, TOO_LONG, line=number)
            continue
        payload = raw.lstrip()
        _add(payload.rstrip(), found, source=source, path=path, offset=offset + len(raw) - len(payload), number=number)
    if size is None and stream.read(1):
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")


def _add(payload: bytes, found: ReportCollection, *, source: str, path: Path | None, offset: int, number: int) -> None:
    try:
        report = parse(payload, origin=source)
    except InvalidReport as error:
        shorter = None if error.whole else _first_value(payload)
        if shorter is not None:
            _add(shorter, found, source=source, path=path, offset=offset, number=number)
        else:
            # A whole report of another schema version is not a damaged one, and says so.
            found.skip(source, str(error) if error.whole else DAMAGED_LINE, line=number)
        return
    found.add(report, source=source, place=ReportLocation.of(payload, path=path, offset=offset))


def _first_value(payload: bytes) -> bytes | None:
    """The JSON at the start of ``payload`` where another writer's text follows it on the same line."""
    try:
        text = payload.decode("utf-8", errors="surrogateescape")
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    first = text[:end].encode("utf-8", errors="surrogateescape")
    return first if len(first) < len(payload) else None


def _marked(stream: BinaryIO, size: int) -> Iterator[tuple[int, int, bytes]]:
    """What follows each marker in the first ``size`` bytes, up to the next one or the line's end.

    Each with its line's number and its own offset. What is longer than :data:`.parse.REPORT_LIMIT` is cut, but not
    to that length. Of a line without a marker, however long, no more than two pieces are in memory.
    """
    number, offset, text, left = 1, 0, b"", size
    while piece := stream.readline(min(REPORT_LIMIT, left)):
        left -= len(piece)
        text += piece
        ended = piece.endswith(b"\n") or len(piece) < REPORT_LIMIT or not left
        begin = text.find(_MARKER)
        while begin >= 0:
            start = begin + len(_MARKER)
            end = text.find(_MARKER, start)
            if end < 0 and not ended and len(text) - start <= REPORT_LIMIT:
                # The rest of it is still to come.
                break
            yield number, offset + start, text[start:] if end < 0 else text[start:end]
            begin = end
        # The end of a piece may be the beginning of a marker.
        done = len(text) if ended else begin if begin >= 0 else max(0, len(text) - len(_MARKER) + 1)
        offset += done
        text = text[done:]
        number += piece.endswith(b"\n")
