"""Writes the report's JSON Schema beside the code that defines it: ``python -m jobs.report.publish``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from jobs.report.schema import SCHEMA_MAJOR, json_schema

SCHEMA_FILE: Final = Path(__file__).with_name(f"report-v{SCHEMA_MAJOR}.schema.json")


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
