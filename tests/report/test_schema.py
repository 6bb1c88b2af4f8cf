from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from jobs.choices import FRAMEWORKS
from jobs.report import read
from jobs.report.publish import SCHEMA_FILE, schema_text
from jobs.report.schema import SCHEMA_VERSION, Report, json_schema
from tests.support.reports import make_report

EARLIER = Path(__file__).with_name("earlier")
"""Reports that earlier releases wrote, one for each version of the schema."""
JOBS = Path(__file__).parents[2] / "jobs"

CONTRACT = {
    "": "schema_version run_id attempt status started_at_utc finished_at_utc environment devices config results "
    "phases parity telemetry timeseries warnings",
    "environment": "driver_version cuda_driver_version cuda_runtime_version cudnn_version framework python_version "
    "image git_sha kubernetes cpu",
    "config": "recipe protocol framework seed epochs batch_size learning_rate dataset parameter_count precision "
    "execution input device numerics",
    "results": "test_accuracy_ratio test_loss train_loss train_wall_s steady_images_per_s time_to_accuracy_s "
    "model_flop_per_image achieved_flop_per_s ceiling_flop_per_s ceiling_share_ratio epochs",
    "results.epochs.0": "epoch wall_s train_loss test_loss test_accuracy_ratio",
    "devices.0": "framework_index uuid mig_uuid pci_bus_id name compute_capability memory_total_bytes power_limit_w "
    "mapping_method",
    "phases.0": "name start_s end_s gpu host",
    "telemetry": "available capabilities sampler",
    "telemetry.sampler": "mode interval_s taken missed lateness_p95_ms cpu_s",
}


@pytest.mark.parametrize("path", CONTRACT)
def test_report_has_the_names_of_the_contract(path: str) -> None:
    node: Any = make_report(gpu=True).model_dump(mode="json")
    for part in filter(None, path.split(".")):
        node = node[int(part)] if part.isdigit() else node[part]
    assert set(CONTRACT[path].split()) <= set(node)


def test_published_schema_is_that_of_the_code() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_published_schema_accepts_a_report_and_refuses_a_wrong_one() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    document = json.loads(make_report(gpu=True, timeseries=True).model_dump_json())
    validator.validate(document)
    document["results"]["test_accuracy_ratio"] = 95.8
    assert not validator.is_valid(document)


@pytest.mark.parametrize("path", sorted(EARLIER.glob("*.json")), ids=lambda path: path.stem)
def test_report_of_an_earlier_minor_version_is_read(path: Path) -> None:
    report = read(path)
    assert report.schema_version == path.stem
    assert report.results.test_accuracy_ratio == 0.95
    assert report.phases[-1].gpu is not None
    # What it says is the same when it is written again.
    before = json.loads(path.read_text("utf-8"))
    after = json.loads(report.model_dump_json())
    assert {key: after["results"][key] for key in before["results"]} == before["results"]


@pytest.mark.parametrize("version", ["2.0", "0.9", "x", "", "1²"])
def test_report_of_another_major_version_is_refused_by_name(version: str) -> None:
    document = make_report().model_dump(mode="json")
    with pytest.raises(ValidationError, match="schema version"):
        Report.model_validate({**document, "schema_version": version})


def test_report_of_a_later_minor_version_is_read() -> None:
    major, minor = map(int, SCHEMA_VERSION.split("."))
    later = f"{major}.{minor + 1}"
    document = {**make_report().model_dump(mode="json"), "schema_version": later, "something_new": 1}
    assert Report.model_validate(document).schema_version == later


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_report_with_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        make_report(changes={"results.test_loss": value})


def test_framework_names_are_listed_in_one_module_only() -> None:
    listed = re.compile("[\\[(]" + ", ".join(f'"{name}"' for name in FRAMEWORKS) + "[\\])]")
    modules = [path for path in JOBS.rglob("*.py") if listed.search(path.read_text(encoding="utf-8"))]
    assert modules == [JOBS / "choices.py"]


def test_run_id_with_a_path_is_refused() -> None:
    with pytest.raises(ValidationError):
        make_report(run_id="../elsewhere")
