"""Reads and writes reports as files and as log lines."""

from __future__ import annotations

import json
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from jobs.errors import BadInput, NotWritable
from jobs.io.atomic_file import pending_file, sync_folder
from jobs.report.schema import Report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.io.atomic_file import PendingFile

LINE_MARKER: Final = "MNIST_JOBS_REPORT "
"""The start of a report line in a log, after any prefix of the log."""


def write(report: Report, folder: Path) -> Path:
    """Write ``report`` into ``folder`` (made if missing) and return the file's path.

    The file appears whole under its final name or not at all, and an existing file is never replaced: a
    second report of the same run and attempt gets the next free name.

    Raises:
        NotWritable: the folder cannot be made or written to, or the disk is full.
    """
    copies = chain([""], (f".{number}" for number in count(2)))
    paths = (folder / f"{report.run_id}-a{report.attempt}{copy}.json" for copy in copies)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with pending_file(to_text(report).encode(), folder, report.run_id) as file:
            path = next(path for path in paths if _linked(file, path))
        sync_folder(folder)
    except OSError as error:
        raise NotWritable(
            f"report folder {str(folder)!r} cannot be written ({error.strerror or error}); "
            "choose another with --report-dir, or fix its owner, mode or free space"
        ) from error
    return path


def to_text(report: Report) -> str:
    """The file's text: indented for people, except for the time series, which is one line."""
    text = report.model_dump_json(indent=2, exclude={"timeseries"}).removesuffix("\n}")
    series = "null" if report.timeseries is None else report.timeseries.model_dump_json()
    return f'{text},\n  "timeseries": {series}\n}}\n'


def read(path: Path) -> Report:
    """Read one report file.

    Raises:
        BadInput: the file cannot be read or is no report this release understands.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{str(path)!r} cannot be read ({error}); give a report written by a job") from error
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str) -> Report:
    """Turn JSON text into a report; ``origin`` names the text in errors.

    Raises:
        BadInput: not JSON, not a report, or of a schema version this release cannot read.
    """
    try:
        data: Any = json.loads(text)
        return Report.from_data(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BadInput(f"{origin!r} is no report of a job: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{origin!r} is no report of a job: not valid JSON ({error})") from error


def to_line(report: Report) -> str:
    """One marked line for a log, without the time series, which may hold thousands of samples."""
    reasons = {**report.null_reasons, "timeseries": "kept in the report file only"}
    slim = report.model_copy(update={"timeseries": None, "null_reasons": reasons})
    # In ASCII, whatever the log's encoding is.
    return LINE_MARKER + slim.model_dump_json(ensure_ascii=True)


def from_line(line: str, *, origin: str) -> Report | None:
    """The report in a log line, after any prefix; ``None`` if the line has no marker.

    Raises:
        BadInput: the text after the marker is no report, for example cut short.
    """
    _, marker, payload = line.partition(LINE_MARKER)
    return parse(payload.strip(), origin=origin) if marker else None


def _linked(file: PendingFile, path: Path) -> bool:
    try:
        file.link(path)
    except FileExistsError:
        return False
    return True
