"""Reads the marked lines of a log: reports, started records and those of ranks, among other and damaged lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.comparison.input.parse import REPORT_LIMIT, InvalidReport, parse
from jobs.comparison.input.rank_records import parse_rank_record
from jobs.comparison.input.run_summary import ReportLocation, summarize
from jobs.comparison.input.started import parse_started
from jobs.report import LINE_MARKER
from jobs.report.rank_record import RANK_MARKER, RankRecord
from jobs.report.started import STARTED_MARKER, StartedRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jobs.comparison.input.report_collection import ReportCollection
    from jobs.report import Report

    Marked = Report | StartedRun | RankRecord

LOG_LIMIT: Final = 4 * 1024**3
"""Maximum bytes of one log: 250,000 report lines. Input without an end is given up here, within seconds."""

DAMAGED_LINE: Final = "report line cut short or damaged"
DAMAGED_STARTED_LINE: Final = "started line cut short or damaged"
DAMAGED_RANK_LINE: Final = "rank line cut short or damaged"
TOO_LONG: Final = f"report line longer than {REPORT_LIMIT // 1024**2} MiB"
TOO_LARGE: Final = (
    f"larger than {LOG_LIMIT // 1024**3} GiB; give its lines with {LINE_MARKER.strip()} alone, as grep -a finds them"
)

_REPORT: Final = LINE_MARKER.encode()
_STARTED: Final = STARTED_MARKER.encode()
_RANK: Final = RANK_MARKER.encode()
_COMMON_START: Final = b"MNIST_JOBS_"
"""All markers begin with it."""
_DAMAGED: Final = {_REPORT: DAMAGED_LINE, _STARTED: DAMAGED_STARTED_LINE, _RANK: DAMAGED_RANK_LINE}
_PARSE: Final[Mapping[bytes, Callable[..., Marked]]] = {
    _REPORT: parse,
    _STARTED: parse_started,
    _RANK: parse_rank_record,
}
_DECODER: Final = json.JSONDecoder()


def read_log(
    stream: BinaryIO, collection: ReportCollection, *, source: str, path: str | None = None, size: int | None = None
) -> None:
    r"""Add the reports and records in ``stream`` to ``collection``.

    ``path`` is the file to read reports from again, if there is one.

    Lines end at ``\n`` alone: a progress bar's ``\r`` belongs to what precedes the marker. A line may have several
    markers, where a pod was killed in the middle of one and the next began on the same line, and may be of any
    length. Nothing is read beyond ``size``, or beyond :data:`LOG_LIMIT` where none is given.

    Raises:
        BadInput: two different reports have the same run id and attempt, or the log is too large.
        OSError: the stream cannot be read.
    """
    if size is not None and size > LOG_LIMIT:
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")
    for number, offset, marker, raw in _marked(stream, LOG_LIMIT if size is None else size):
        try:
            # Where the text is longer, the report at its start may still be whole.
            parsed, payload = _parse_start(_PARSE[marker], raw[:REPORT_LIMIT].strip(), origin=source)
        except InvalidReport as error:
            reason = TOO_LONG if len(raw) > REPORT_LIMIT else _DAMAGED[marker]
            # A JSON document that is no report, such as one of another schema version, is not a damaged line.
            collection.skip(source, str(error) if error.valid_json else reason, line=number)
            continue
        if isinstance(parsed, StartedRun):
            collection.started.add(parsed, source=source, raw=payload)
        elif isinstance(parsed, RankRecord):
            collection.started.ranks.add(parsed, source=source, raw=payload)
        else:
            start = len(raw) - len(raw.lstrip())
            location = ReportLocation.of(payload, path=path, offset=offset + start)
            collection.add(summarize(parsed, source=source, location=location))
    if size is None and stream.read(1):
        raise InvalidReport(f"{source!r} is {TOO_LARGE}")


def _parse_start(parse_payload: Callable[..., Marked], payload: bytes, *, origin: str) -> tuple[Marked, bytes]:
    """What is at the start of ``payload``, and its bytes; another writer's text may follow on the same line."""
    try:
        return parse_payload(payload, origin=origin), payload
    except InvalidReport as error:
        shorter = None if error.valid_json else _first_value(payload)
        if shorter is None:
            raise
    return parse_payload(shorter, origin=origin), shorter


def _first_value(payload: bytes) -> bytes | None:
    """The JSON document at the start of ``payload``; ``None`` where there is none or nothing follows it."""
    try:
        text = payload.decode("utf-8", errors="surrogateescape")
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    first = text[:end].encode("utf-8", errors="surrogateescape")
    return first if len(first) < len(payload) else None


def _marked(stream: BinaryIO, size: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Line number, offset, marker and text after each marker in the first ``size`` bytes, up to the next or line end.

    Text longer than :data:`.parse.REPORT_LIMIT` is cut, though not to exactly that length. At most two pieces of a
    line without a marker are in memory.
    """
    number, offset, text, remaining = 1, 0, b"", size
    while piece := stream.readline(min(REPORT_LIMIT, remaining)):
        remaining -= len(piece)
        text += piece
        line_ended = piece.endswith(b"\n") or len(piece) < REPORT_LIMIT or not remaining
        begin, marker = _find_marker(text, 0)
        while begin >= 0:
            start = begin + len(marker)
            end, next_marker = _find_marker(text, start)
            if end < 0 and not line_ended and len(text) - start <= REPORT_LIMIT:
                # The rest of it has not been read yet.
                break
            yield number, offset + start, marker, text[start:] if end < 0 else text[start:end]
            begin, marker = end, next_marker
        # The end of a piece may be the beginning of a marker.
        done = len(text) if line_ended else begin if begin >= 0 else max(0, len(text) - len(_STARTED) + 1)
        offset += done
        text = text[done:]
        number += piece.endswith(b"\n")


def _find_marker(text: bytes, start: int) -> tuple[int, bytes]:
    """Where the first marker from ``start`` on begins, and the marker; -1 without one."""
    begin = text.find(_COMMON_START, start)
    while begin >= 0:
        for marker in _PARSE:
            if text.startswith(marker, begin):
                return begin, marker
        begin = text.find(_COMMON_START, begin + 1)
    return -1, b""
