"""Runs that have started and have no report count as failed, each once."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.build import build
from jobs.comparison.input.load import Loaded, load
from jobs.comparison.input.logs import DAMAGED_STARTED_LINE
from jobs.comparison.input.started import NO_REPORT
from jobs.errors import BadInput
from jobs.report import SCHEMA_VERSION, to_line
from jobs.report.started import STARTED_MARKER, StartedRun
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from pathlib import Path

STARTED = datetime(2026, 1, 5, tzinfo=UTC)


def make_started(run_id: str = "died", *, seed: int = 9, **changes: Any) -> StartedRun:
    config = {"recipe": "lenet", "protocol": "matched", "framework": "torch", "seed": seed, "epochs": 2}
    kubernetes = {"node": "node-1", "namespace": None, "pod": None, "job": None, "index": 4}
    return StartedRun.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "attempt": 1,
            "status": "started",
            "status_reason": None,
            "started_at_utc": STARTED,
            "config": config,
            "kubernetes": kubernetes,
        }
        | changes
    )


def write_started(run: StartedRun, folder: Path, name: str | None = None) -> None:
    (folder / (name or run.file_name)).write_text(run.model_dump_json())


def load_paths(*paths: Path) -> Loaded:
    return load([str(path) for path in paths], io.BytesIO())


def died(loaded: Loaded) -> list[tuple[str, int, str, str | None]]:
    return [(run.run_id, run.attempt, run.status, run.status_reason) for run in loaded.runs if not run.has_report]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write_report(make_report(seed=1), tmp_path / "one.json")
    return tmp_path


def test_started_run_without_a_report_is_a_failed_run(reports: Path) -> None:
    write_started(make_started(), reports)
    loaded = load_paths(reports)
    assert died(loaded) == [("died", 1, "failed", NO_REPORT)]
    (run,) = [run for run in loaded.runs if not run.has_report]
    assert (run.seed, run.index, run.node, run.started_at_utc) == (9, 4, "node-1", STARTED)
    assert loaded.skipped == ()
    (section,) = build(loaded).sections
    assert section.sides[0].runs_by_status == {"completed": 1, "failed": 1}
    assert section.sides[0].framework_versions == ["2.15.0"]
    assert "1 torch run (failed)" in section.verdict.text


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("failed", "no GPU", [("died", 1, "failed", "no GPU")]),
        ("interrupted", "SIGTERM", [("died", 1, "interrupted", "SIGTERM")]),
        ("refused", "no such option", []),
    ],
)
def test_started_run_that_says_how_it_ended_counts_as_that(
    status: str, reason: str, expected: list[Any], reports: Path
) -> None:
    write_started(make_started(status=status, status_reason=reason), reports)
    assert died(load_paths(reports)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "torch-lenet-matched-1"},
        # An attempt that went on from a checkpoint, and one that was registered under another number.
        {"run_id": "torch-lenet-matched-1", "attempt": 7},
        # Its run id was guessed from a checkpoint that was refused then.
        {"run_id": "another", "started_at_utc": make_report().started_at_utc},
    ],
)
def test_started_run_with_a_report_is_counted_once(changes: dict[str, Any], reports: Path) -> None:
    write_started(make_started(seed=1, **changes), reports)
    loaded = load_paths(reports)
    assert died(loaded) == []
    assert len(loaded.runs) == 1


def test_started_runs_of_the_same_id_and_other_settings_are_others(reports: Path) -> None:
    # The same id as the report's, and another seed.
    write_started(make_started("torch-lenet-matched-1", seed=2), reports)
    assert died(load_paths(reports)) == [("torch-lenet-matched-1", 1, "failed", NO_REPORT)]


def test_started_run_of_several_attempts_is_one_failed_run(reports: Path) -> None:
    for attempt in (1, 2, 3):
        write_started(make_started(attempt=attempt), reports)
    loaded = load_paths(reports)
    assert len(died(loaded)) == 3
    (section,) = build(loaded).sections
    assert section.sides[0].runs_by_status == {"completed": 1, "failed": 1}


def test_started_record_and_copies_in_files_and_logs_count_once(reports: Path) -> None:
    record = make_started()
    write_started(record, reports)
    write_started(record, reports, "copy.started")
    failed = record.model_copy(update={"status": "failed", "status_reason": "out of luck"})
    (reports / "pod.log").write_text(f"torch on cpu\n[pod] {record.to_line()}\n[pod] {failed.to_line()}\n")
    assert died(load_paths(reports)) == [("died", 1, "failed", "out of luck")]


def test_started_line_before_its_report_in_a_log_is_no_failure(tmp_path: Path) -> None:
    report = make_report()
    record = make_started(report.run_id, seed=1)
    (tmp_path / "pod.log").write_text(f"{record.to_line()}\n{to_line(report)}\n")
    assert died(load_paths(tmp_path)) == []
    # Another pod's line may be on the same one, and the killed pod's may be cut.
    (tmp_path / "pod.log").write_text(f"{to_line(report)}{make_started().to_line()}\n{record.to_line()[:60]}\n")
    loaded = load_paths(tmp_path)
    assert [row[0] for row in died(loaded)] == ["died"]
    assert [(skipped.reason, skipped.lines) for skipped in loaded.skipped] == [(DAMAGED_STARTED_LINE, (2,))]


def test_started_records_alone_are_refused_with_their_number(tmp_path: Path) -> None:
    write_started(make_started(), tmp_path)
    with pytest.raises(BadInput, match="none of the runs has a report: 1 started record"):
        load_paths(tmp_path)
    # Beside reports in another folder they count.
    write_report(make_report(), tmp_path / "more/one.json")
    assert len(died(load_paths(tmp_path / "more", tmp_path))) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "is no started record"),
        (make_started().model_dump_json().replace('"attempt":1', '"attempt":"1"'), "attempt: Input should be"),
        (
            make_started().model_dump_json().replace(f'"{SCHEMA_VERSION}"', '"2.0"'),
            "schema version '2.0' cannot be read",
        ),
        (make_started().model_dump_json().replace('"died"', '"../died"'), "run_id"),
        (make_report().model_dump_json(), "is no started record"),
    ],
)
def test_started_record_that_is_none_is_named_and_nothing_is_lost(content: str, reason: str, reports: Path) -> None:
    (reports / "bad.started").write_text(content)
    loaded = load_paths(reports)
    assert len(loaded.runs) == 1
    (skipped,) = loaded.skipped
    assert reason in skipped.reason
    assert "bad.started" in skipped.reason
    with pytest.raises(BadInput, match=r"bad\.started"):
        load_paths(reports, reports / "bad.started")


def test_started_record_as_a_report_is_refused_as_earlier_releases_do(tmp_path: Path) -> None:
    (tmp_path / "renamed.json").write_text(make_started().model_dump_json())
    with pytest.raises(BadInput, match="is no report of a job"):
        load_paths(tmp_path / "renamed.json")


def test_started_record_keeps_control_characters_out_of_the_output(reports: Path) -> None:
    record = make_started(status="failed", status_reason="\x1b[2J" + "x" * 5000)
    write_started(record, reports)
    (row,) = died(load_paths(reports))
    assert len(row[3] or "") < 1100


def test_run_that_died_on_a_node_whose_gpu_is_known_is_no_node_of_its_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        kubernetes = {"node": f"node-{seed}", "namespace": None, "pod": None, "job": None, "index": seed}
        changes = {"environment.kubernetes": kubernetes, "devices.0.uuid": f"GPU-{seed}"}
        write_report(make_report(seed=seed, gpu=True, changes=changes), tmp_path / f"{seed}.json")
    write_started(make_started(), tmp_path)
    elsewhere = {**json.loads(make_started().model_dump_json())["kubernetes"], "node": "node-3"}
    write_started(make_started("also", seed=3, kubernetes=elsewhere), tmp_path)
    (section,) = build(load_paths(tmp_path)).sections
    assert sorted((node.node, node.runs) for node in section.sides[0].nodes) == [
        ("node-1", 1),
        ("node-2", 1),
        ("node-3", 1),
    ]


def test_attempts_of_one_id_and_other_settings_are_other_runs(tmp_path: Path) -> None:
    """A later attempt under the same id hid an earlier one of another framework."""
    later = {"started_at_utc": make_report().started_at_utc + timedelta(hours=1)}
    write_report(make_report(framework="tensorflow", run_id="same", status="failed"), tmp_path / "1.json")
    write_report(make_report(framework="torch", run_id="same", attempt=2, changes=later), tmp_path / "2.json")
    (section,) = build(load_paths(tmp_path)).sections
    assert {side.framework: side.runs_by_status for side in section.sides} == {
        "tensorflow": {"failed": 1},
        "torch": {"completed": 1},
    }


def test_marker_of_started_lines_is_unknown_to_earlier_releases() -> None:
    assert not STARTED_MARKER.startswith("MNIST_JOBS_REPORT")
