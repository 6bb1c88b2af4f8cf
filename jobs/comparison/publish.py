"""Writes the JSON Schema of comparison.json beside the code: ``python -m jobs.comparison.publish``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from jobs.comparison.schema import SCHEMA_VERSION, Comparison

SCHEMA_FILE: Final = Path(__file__).with_name(f"comparison-v{SCHEMA_VERSION.partition('.')[0]}.schema.json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of :class:`.schema.Comparison` (draft 2020-12)."""
    schema = Comparison.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mnist-jobs comparison"}


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
