"""Each field of the report's schema and of the started record's is read strictly, and earlier reports still merge."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from jobs.comparison.build import build
from jobs.comparison.input.load import load
from jobs.comparison.input.parse import parse
from jobs.errors import BadInput
from jobs.report import parse as parse_text
from jobs.report.schema import SCHEMA_VERSION, Report, json_schema
from jobs.report.started import StartedRun
from tests.comparison.hostile import TEMPLATE, leaves
from tests.support.every_field import with_every_field
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from collections.abc import Callable

EARLIER = Path(__file__).parents[2] / "report/earlier"
REPORT = with_every_field(TEMPLATE, json_schema())
RECORD = with_every_field(
    {"schema_version": SCHEMA_VERSION, "run_id": "x", "status": "failed"}, StartedRun.model_json_schema()
)
NO_NUMBERS: tuple[Any, ...] = (True, False, "1", "0.5", " 1", "1e2", "", [], {}, [1])
NO_TEXTS: tuple[Any, ...] = (0, 1, 1.5, 1_767_323_045, True, [], {}, ["x"])
NO_BOOLEANS: tuple[Any, ...] = (0, 1, 1.0, "true", "false", "1", "", [], {})


def _wrong_values(value: object) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return NO_BOOLEANS
    if isinstance(value, int):
        return (*NO_NUMBERS, 1.0, 1.5)
    return NO_NUMBERS if isinstance(value, float) else NO_TEXTS


def _wrongly_accepted(document: Any, parse_data: Callable[[Any], object]) -> dict[str, list[Any]]:
    """By the path of each field, the values of another type with which the document is read; of a list, its first."""
    parse_data(document)
    accepted: dict[str, list[Any]] = {}
    for path, value in leaves(document):
        if any(part != 0 for part in path if isinstance(part, int)):
            continue
        *parents, last = path
        parent = document
        for part in parents:
            parent = parent[part]
        accepted[".".join(map(str, path))] = found = []
        for wrong in _wrong_values(value):
            parent[last] = wrong
            with suppress(ValidationError):
                parse_data(document)
                found.append(wrong)
        parent[last] = value
    return accepted


def test_read_report_value_of_another_type_in_any_field_is_refused() -> None:
    accepted = _wrongly_accepted(deepcopy(REPORT), Report.from_data)
    assert {path: values for path, values in accepted.items() if values} == {}
    assert len(accepted) > 350


def test_read_started_value_of_another_type_in_any_field_is_refused() -> None:
    accepted = _wrongly_accepted(deepcopy(RECORD), StartedRun.from_data)
    assert {path: values for path, values in accepted.items() if values} == {}
    assert {"attempt", "config.seed", "config.design.block", "kubernetes.index"} <= set(accepted)


@pytest.mark.parametrize(("path", "value"), [("results.test_loss", True), ("results.test_loss", "0.5"), ("seed", "1")])
def test_parse_value_of_another_type_is_refused_wherever_it_is_read(path: str, value: object) -> None:
    results = {**REPORT["results"], "test_loss": value} if path == "results.test_loss" else REPORT["results"]
    config = {**REPORT["config"], "seed": value} if path == "seed" else REPORT["config"]
    text = json.dumps({**REPORT, "results": results, "config": config})
    with pytest.raises(BadInput, match=path):
        parse(text.encode(), origin="x")
    with pytest.raises(BadInput, match=path):
        parse_text(text, origin="x")


def test_report_with_every_field_has_each_name_of_the_schema() -> None:
    names = {name for model in json_schema()["$defs"].values() for name in model.get("properties", {})}
    assert names <= {part for path, _ in leaves(REPORT) for part in path}


@pytest.mark.parametrize("earlier", sorted(EARLIER.glob("*.json")), ids=lambda path: path.stem)
def test_merge_report_of_an_earlier_version_beside_a_new_one_counts(earlier: Path, tmp_path: Path) -> None:
    new = write_report(make_report(framework="tensorflow", gpu=True), tmp_path / "new.json")
    loaded = load([str(earlier), str(new)], io.BytesIO())
    assert [run.status for run in loaded.runs] == ["completed", "completed"]
    assert loaded.skipped == ()
    (section,) = build(loaded).sections
    assert section.verdict.kind == "single_observation"
    assert {side.framework for side in section.sides} == {"tensorflow", "torch"}
