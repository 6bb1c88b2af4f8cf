"""The report of one run: its schema, and how it is written and read."""

from jobs.report.document import LINE_MARKER, from_line, parse, read, to_line, to_text, write
from jobs.report.schema import SCHEMA_VERSION, Report, json_schema

__all__ = [
    "LINE_MARKER",
    "SCHEMA_VERSION",
    "Report",
    "from_line",
    "json_schema",
    "parse",
    "read",
    "to_line",
    "to_text",
    "write",
]
