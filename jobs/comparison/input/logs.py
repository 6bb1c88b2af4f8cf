"""Reads the marked report lines of a log, among prefixes, other pods' lines and lines cut short."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.comparison.input.parse import REPORT_LIMIT, InvalidReport, parse
from jobs.comparison.input.run_summary import ReportLocation, summarize
from jobs.report import LINE_MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.comparison.input.report_collection import ReportCollection
    from jobs.report import Report

LOG_LIMIT: Final = 16 * 1024**3
"""Maximum bytes of one log: a million report lines. Input without an end is given up here."""

DAMAGED_LINE: Final = "report line cut short or damaged"
TOO_LONG: Final = f"report line longer than {REPORT_LIMIT // 1024**2} MiB"
TOO_LARGE: Final = (
    f"larger than {LOG_LIMIT // 1024**3} GiB; give its lines with {LINE_MARKER.strip()} alone, as grep -a finds them"
)

_MARKER: Final = LINE_MARKER.encode()
_DECODER: Final = json.JSONDecoder()


def read_log(
    stream: BinaryIO, collection: ReportCollection, *, source: str, path: str | None = None, size: int | None = None
) -> None:
    r"""Add the reports in ``stream`` to ``collection``; ``path`` is the file to read them from again, if there is one.

    Lines end at ``\n`` alone: a progress bar's ``\r`` belongs to what precedes the marker. A line may have several
    markers, where a pod was killed in the middle of one and the next began on the same line, and may be of any
    length. Nothing is read beyond ``size``, or beyond :data:`LOG_LIMIT` where none is given.

    Raises:
        BadInput: two different reports have the same run id and attempt, or the log is too large.
        OSError: the stream cannot be read.
    """
    if size is not None and size > LOG_LIMIT:
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")
    for number, offset, raw in _marked(stream, LOG_LIMIT if size is None else size):
        if len(raw) > REPORT_LIMIT:
            collection.skip(source, TOO_LONG, line=number)
            continue
        start = len(raw) - len(raw.lstrip())
        try:
            report, payload = _parse_start(raw.strip(), origin=source)
        except InvalidReport as error:
            # A JSON document that is no report, such as one of another schema version, is not a damaged line.
            collection.skip(source, str(error) if error.valid_json else DAMAGED_LINE, line=number)
        else:
            location = ReportLocation.of(payload, path=path, offset=offset + start)
            collection.add(summarize(report, source=source, location=location))
    if size is None and stream.read(1):
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")


def _parse_start(payload: bytes, *, origin: str) -> tuple[Report, bytes]:
    """The report at the start of ``payload``, and its bytes; another writer's text may follow on the same line."""
    try:
        return parse(payload, origin=origin), payload
    except InvalidReport as error:
        shorter = None if error.valid_json else _first_value(payload)
        if shorter is None:
            raise
    return parse(shorter, origin=origin), shorter


def _first_value(payload: bytes) -> bytes | None:
    """The JSON document at the start of ``payload``; ``None`` where there is none or nothing follows it."""
    try:
        text = payload.decode("utf-8", errors="surrogateescape")
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    first = text[:end].encode("utf-8", errors="surrogateescape")
    return first if len(first) < len(payload) else None


def _marked(stream: BinaryIO, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Line number, offset and text after each marker in the first ``size`` bytes, up to the next marker or line end.

    Text longer than :data:`.parse.REPORT_LIMIT` is cut, though not to exactly that length. At most two pieces of a
    line without a marker are in memory.
    """
    number, offset, text, remaining = 1, 0, b"", size
    while piece := stream.readline(min(REPORT_LIMIT, remaining)):
        remaining -= len(piece)
        text += piece
        line_ended = piece.endswith(b"\n") or len(piece) < REPORT_LIMIT or not remaining
        begin = text.find(_MARKER)
        while begin >= 0:
            start = begin + len(_MARKER)
            end = text.find(_MARKER, start)
            if end < 0 and not line_ended and len(text) - start <= REPORT_LIMIT:
                # The rest of it has not been read yet.
                break
            yield number, offset + start, text[start:] if end < 0 else text[start:end]
            begin = end
        # The end of a piece may be the beginning of a marker.
        done = len(text) if line_ended else begin if begin >= 0 else max(0, len(text) - len(_MARKER) + 1)
        offset += done
        text = text[done:]
        number += piece.endswith(b"\n")
