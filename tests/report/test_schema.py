from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from jobs.report.publish import SCHEMA_FILE, schema_text
from jobs.report.schema import FRAMEWORKS, SCHEMA_VERSION, Report, json_schema
from tests.support.reports import make_report

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
def test_the_contract_s_names_are_there(path: str) -> None:
    node = make_report(gpu=True).model_dump(mode="json")
    for part in filter(None, path.split(".")):
        node = node[int(part)] if part.isdigit() else node[part]
    assert set(CONTRACT[path].split()) <= set(node)


def test_published_schema_is_the_code_s() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_published_schema_accepts_a_report_and_refuses_a_wrong_one() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    document = json.loads(make_report(gpu=True, timeseries=True).model_dump_json())
    validator.validate(document)
    document["results"]["test_accuracy_ratio"] = 95.8
    assert not validator.is_valid(document)


def test_a_null_without_a_reason_is_found() -> None:
    report = make_report()
    assert report.unexplained_nulls() == []
    bare = report.model_copy(update={"null_reasons": {}})
    assert "phases[].gpu" in bare.unexplained_nulls()
    assert "timeseries" in bare.unexplained_nulls()


def test_a_reason_speaks_for_what_is_below_it_and_for_nothing_else() -> None:
    report = make_report()
    reasons = {key: value for key, value in report.null_reasons.items() if not key.startswith("environment")}
    reasons["environment.image"] = "reason"
    reasons["environment.cpu"] = "reason"
    missing = report.model_copy(update={"null_reasons": reasons}).unexplained_nulls()
    assert "environment.cpu.quota_cores" not in missing
    assert "environment.git_sha" in missing


@pytest.mark.parametrize("version", ["2.0", "0.9", "x", "", "1²"])
def test_another_major_version_is_refused_by_name(version: str) -> None:
    document = make_report().model_dump(mode="json")
    with pytest.raises(ValidationError, match="schema version"):
        Report.model_validate({**document, "schema_version": version})


def test_a_later_minor_version_is_read() -> None:
    document = {**make_report().model_dump(mode="json"), "schema_version": "1.99", "something_new": 1}
    assert Report.model_validate(document).schema_version == "1.99"
    assert SCHEMA_VERSION != "1.99"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        make_report(changes={"results.test_loss": value})


def test_framework_names_are_listed_only_in_the_report_schema() -> None:
    listed = re.compile("[\\[(]" + ", ".join(f'"{name}"' for name in FRAMEWORKS) + "[\\])]")
    modules = [path for path in JOBS.rglob("*.py") if listed.search(path.read_text(encoding="utf-8"))]
    assert modules == [JOBS / "report" / "schema.py"]


def test_a_run_id_cannot_leave_its_folder() -> None:
    with pytest.raises(ValidationError):
        make_report(run_id="../elsewhere")
