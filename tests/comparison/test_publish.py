from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema

from jobs.comparison.build import build
from jobs.comparison.publish import SCHEMA_FILE, json_schema, schema_text
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, loaded_from, side, write_all
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path


def test_published_schema_is_the_code_s() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_published_schema_accepts_what_is_written_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    comparison = compare(
        *side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS), make_report(seed=9, status="failed")
    )
    path, *_ = write_all(comparison, tmp_path)
    document = json.loads(path.read_text(encoding="utf-8"))
    validator.validate(document)
    document["sections"][0]["verdict"]["kind"] = "fastest"
    assert not validator.is_valid(document)


def test_a_comparison_with_a_gate_has_the_published_form() -> None:
    runs = loaded_from(*side("torch", TORCH_SPEEDS))
    document = json.loads(build(runs, baseline=runs).model_dump_json())
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    assert document["gate"]["outcome"] == "unchanged"
