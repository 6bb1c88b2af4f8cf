"""Every field that may be null has a reason, and every field belongs to a version of the schema."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from jobs.report.null_reasons import GIVEN_BY_TELEMETRY, USUAL_REASONS, nearest_key, path_and_parents
from jobs.report.schema import SCHEMA_VERSION, Report, TimeSeries
from tests.support.reports import make_report

FIELDS = Path(__file__).with_name("fields")
"""One file for each version of the schema, with the paths of all its fields."""


def fields_of(model: type[BaseModel], path: str = "") -> dict[str, bool]:
    """Every field below ``model`` by its path, and whether it may be null."""
    fields: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        fields[below] = NoneType in _alternatives(field.annotation)
        for part, part_path in _models_in(field.annotation, below):
            fields |= fields_of(part, part_path)
    return fields


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def _models_in(kind: Any, path: str) -> list[tuple[type[BaseModel], str]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [] if kind is TimeSeries else [(kind, path)]
    if origin is list:
        return _models_in(arguments[0], f"{path}[]")
    if origin is dict:
        return _models_in(arguments[1], f"{path}.*")
    if origin is Annotated:
        return _models_in(arguments[0], path)
    return [found for argument in arguments for found in _models_in(argument, path)] if origin else []


ALL_FIELDS = fields_of(Report)


def missing_reasons(fields: dict[str, bool]) -> list[str]:
    known = USUAL_REASONS.keys() | set(GIVEN_BY_TELEMETRY)
    return [path for path, nullable in fields.items() if nullable and not known & set(path_and_parents(path))]


def test_every_field_that_may_be_null_has_a_usual_reason_or_one_from_telemetry() -> None:
    assert missing_reasons(ALL_FIELDS) == [], "add the reason to USUAL_REASONS in jobs/report/null_reasons.py"


def test_usual_reasons_are_of_fields_that_exist() -> None:
    assert USUAL_REASONS.keys() - ALL_FIELDS.keys() == set()


def test_a_new_nullable_field_without_a_reason_is_found() -> None:
    class WithNewField(Report):
        new_measurement: float | None = None

    assert missing_reasons(fields_of(WithNewField)) == ["new_measurement"]


def test_fields_of_the_schema_are_those_of_its_version() -> None:
    path = FIELDS / f"{SCHEMA_VERSION}.txt"
    assert path.exists(), f"run `make schema`, which lists the fields of schema {SCHEMA_VERSION}"
    listed, found = set(path.read_text("utf-8").split()), set(ALL_FIELDS)
    new, gone = sorted(found - listed), sorted(listed - found)
    assert not new, f"{new} are new: raise the minor of SCHEMA_VERSION in jobs/report/schema.py, then run `make schema`"
    assert not gone, f"{gone} are gone: only a new major version may leave fields out"


def test_fields_of_an_earlier_minor_version_are_all_still_there() -> None:
    for path in FIELDS.glob(f"{SCHEMA_VERSION.split('.')[0]}.*.txt"):
        assert set(path.read_text("utf-8").split()) <= set(ALL_FIELDS), path.name


@pytest.mark.parametrize(
    ("path", "key"),
    [("a", "a"), ("a.b", "a"), ("a[].b", "a[]"), ("a[]", "a[]"), ("ab", None), ("a[].c.d", "a[].c"), ("c.a", None)],
)
def test_nearest_key_of_a_path_is_itself_or_a_parent(path: str, key: str | None) -> None:
    assert nearest_key(path, {"a": "1", "a[]": "2", "a[].c": "3"}) == key


def test_with_null_reasons_takes_the_most_precise_and_leaves_out_what_is_not_null() -> None:
    report = make_report(changes={"results.test_loss": None}).with_null_reasons(
        {
            "results": "stopped",
            "phases[].gpu": "no NVML",
            "environment": "unknown",
            "results.train_loss": "not null here",
            **dict.fromkeys(GIVEN_BY_TELEMETRY, "telemetry is off"),
        }
    )
    assert report.unexplained_nulls() == []
    assert report.null_reasons["results.test_loss"] == USUAL_REASONS["results.test_loss"]
    assert report.null_reasons["phases[].gpu"] == "telemetry is off"
    assert report.null_reasons["environment.driver_version"] == "telemetry is off"
    assert "results" not in report.null_reasons
    assert "results.train_loss" not in report.null_reasons


def test_a_null_without_a_reason_is_found() -> None:
    report = make_report()
    assert report.unexplained_nulls() == []
    bare = report.model_copy(update={"null_reasons": {}})
    assert "phases[].gpu" in bare.unexplained_nulls()
    assert "timeseries" in bare.unexplained_nulls()


def test_a_reason_covers_what_is_below_it_and_nothing_else() -> None:
    report = make_report()
    reasons = {key: value for key, value in report.null_reasons.items() if not key.startswith("environment")}
    reasons["environment.image"] = "reason"
    reasons["environment.cpu"] = "reason"
    missing = report.model_copy(update={"null_reasons": reasons}).unexplained_nulls()
    assert "environment.cpu.quota_cores" not in missing
    assert "environment.git_sha" in missing


if __name__ == "__main__":
    # A version's list is never rewritten: a field that it lacks needs a new version.
    with suppress(FileExistsError), (FIELDS / f"{SCHEMA_VERSION}.txt").open("x", encoding="utf-8") as file:
        file.write("".join(f"{path}\n" for path in sorted(ALL_FIELDS)))
