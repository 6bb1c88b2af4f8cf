from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.comparison.input.load import Loaded, load
from jobs.comparison.input.logs import DAMAGED_LINE
from jobs.comparison.input.report_collection import Skipped
from jobs.errors import BadInput
from jobs.report import LINE_MARKER, SCHEMA_VERSION, Report, to_line
from tests.support.reports import make_report, write_report

LINES = [
    to_line(make_report(framework=framework, seed=seed)) for framework in ("tensorflow", "torch") for seed in (1, 2)
]
LINE = LINES[0].encode()


def load_stdin(data: bytes) -> Loaded:
    return load(["-"], io.BytesIO(data))


def load_paths(*paths: Path, leave_out: tuple[Path, ...] = ()) -> Loaded:
    return load([str(path) for path in paths], io.BytesIO(), leave_out=leave_out)


def run_ids(loaded: Loaded) -> list[str]:
    return [run.run_id for run in loaded.runs]


def test_load_file_folder_and_log_are_read_together(tmp_path: Path) -> None:
    write_report(make_report(seed=1), tmp_path / "one.json")
    write_report(make_report(seed=2), tmp_path / "folder/deep/two.json")
    (tmp_path / "pod.log").write_text(f"hello\n2026-01-01T00:00:00Z {to_line(make_report(seed=3))}\nbye\n")
    loaded = load_paths(tmp_path / "one.json", tmp_path / "folder", tmp_path / "pod.log")
    assert [run.seed for run in loaded.runs] == [1, 2, 3]
    assert loaded.skipped == ()
    assert loaded.copies == 0


def test_load_folder_reads_its_logs(tmp_path: Path) -> None:
    (tmp_path / "pod.log").write_text(to_line(make_report()) + "\n")
    assert len(load_paths(tmp_path).runs) == 1


def test_load_folder_lists_unusable_files_with_reasons(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    (tmp_path / "cut.json").write_text('{"schema_version": "1.0"')
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "empty.log").write_text("nothing here\n")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "notes.txt").write_text("not looked at")
    loaded = load_paths(tmp_path)
    assert len(loaded.runs) == 1
    reasons = {Path(skipped.source).name: skipped.reason for skipped in loaded.skipped}
    assert set(reasons) == {"cut.json", "other.json", "empty.log", "dangling.json", "loop"}
    assert "not valid JSON" in reasons["cut.json"]
    assert reasons["empty.log"] == "a log without a report line"
    assert reasons["dangling.json"] == "not a regular file"


def test_load_hidden_files_are_not_read(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    (tmp_path / ".report.abc.part").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.json").write_text("{")
    assert load_paths(tmp_path).skipped == ()


def test_load_earlier_output_is_not_read(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    (tmp_path / "comparison.json").write_text("{}")
    assert load_paths(tmp_path, leave_out=(tmp_path / "comparison.json",)).skipped == ()


def test_load_file_and_log_line_of_a_run_keep_the_file(tmp_path: Path) -> None:
    report = make_report(timeseries=True)
    (tmp_path / "a.log").write_text(to_line(report) + "\n")
    write_report(report, tmp_path / "b.json")
    for paths in ((tmp_path / "a.log", tmp_path / "b.json"), (tmp_path / "b.json", tmp_path / "a.log")):
        loaded = load_paths(*paths)
        assert [run.source for run in loaded.runs] == [str(tmp_path / "b.json")]
        assert loaded.runs[0].load_report() == report
        assert loaded.copies == 1


def test_load_attempts_of_a_run_are_separate(tmp_path: Path) -> None:
    write_report(make_report(status="interrupted"), tmp_path / "1.json")
    write_report(make_report(attempt=2), tmp_path / "2.json")
    assert [run.attempt for run in load_paths(tmp_path).runs] == [1, 2]


def test_load_different_reports_of_a_run_are_refused(tmp_path: Path) -> None:
    write_report(make_report(images_per_s=1.0), tmp_path / "1.json")
    write_report(make_report(images_per_s=2.0), tmp_path / "2.json")
    with pytest.raises(BadInput, match="different reports of one run"):
        load_paths(tmp_path)


def test_no_paths_are_refused() -> None:
    with pytest.raises(BadInput, match="nothing to merge"):
        load([], io.BytesIO())


def test_load_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere' cannot be read"):
        load_paths(tmp_path / "nowhere")


def test_load_file_given_by_name_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadInput, match=r"x\.json' is no report"):
        load_paths(tmp_path / "x.json")


def test_load_folder_without_reports_is_refused_with_what_was_skipped(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadInput, match=r"holds no report \(1 skipped, the first: .*x\.json"):
        load_paths(tmp_path)


def test_load_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BadInput, match="neither a file nor a folder"):
        load_paths(tmp_path / "pipe.json")


def test_load_log_without_a_report_is_refused() -> None:
    with pytest.raises(BadInput, match="standard input holds no report;"):
        load_stdin(b"hello\n")


def test_load_newer_schema_in_a_log_is_named() -> None:
    newer = to_line(make_report(seed=7)).replace(f'"schema_version":"{SCHEMA_VERSION}"', '"schema_version":"2.0"')
    loaded = load_stdin(f"{LINES[0]}\n{newer}\n".encode())
    (skipped,) = loaded.skipped
    assert "schema version '2.0' cannot be read" in skipped.reason
    assert skipped.lines == (2,)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cut=st.integers(0, len(LINE)), prefix=st.binary(max_size=20).filter(lambda raw: b"\n" not in raw))
def test_load_line_cut_at_any_byte_is_counted_or_unmarked(cut: int, prefix: bytes) -> None:
    whole = to_line(make_report(seed=9)).encode()
    loaded = load_stdin(prefix + LINE[:cut] + b"\n" + whole)
    if cut == len(LINE):
        assert len(loaded.runs) == 2
        assert loaded.skipped == ()
    elif cut >= len(LINE_MARKER):
        assert loaded.skipped == (Skipped(source="standard input", reason=DAMAGED_LINE, lines=(1,)),)
    else:
        assert loaded.skipped == ()
    assert [run.seed for run in loaded.runs][-1] == 9


def test_load_line_cut_inside_a_character_is_damaged() -> None:
    # Other writers than to_line, and a log that was copied, may have characters of several bytes.
    text = to_line(make_report(changes={"environment.os": "리눅스"})).removeprefix(LINE_MARKER)
    line = f"{LINE_MARKER}{json.dumps(json.loads(text), ensure_ascii=False)}".encode()
    cut = line[: line.index("리".encode()) + 1]
    loaded = load_stdin(cut + b"\n" + LINE + b"\n")
    assert [skipped.reason for skipped in loaded.skipped] == [DAMAGED_LINE]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    order=st.permutations(LINES),
    prefix=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).filter(
        lambda text: LINE_MARKER not in text
    ),
    noise=st.lists(st.binary(max_size=30).filter(lambda raw: LINE_MARKER.encode() not in raw), max_size=5),
)
def test_load_any_order_prefix_and_noise_gives_the_same_runs(order: list[str], prefix: str, noise: list[bytes]) -> None:
    lines = [f"{prefix}{line}".encode() for line in order]
    loaded = load_stdin(b"\n".join([*noise, b"", *lines]))
    assert loaded == load_stdin("\n".join(LINES).encode())
    assert len(loaded.runs) == len(LINES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, len(LINE) - 1), byte=st.integers(0, 255))
def test_load_changed_byte_never_crashes(at: int, byte: int) -> None:
    changed = LINE[:at] + bytes([byte]) + LINE[at + 1 :]
    loaded = load_stdin(changed + b"\n" + LINES[1].encode() + b"\n")
    assert run_ids(loaded)[-1]
    assert all(isinstance(run.load_report(), Report) for run in loaded.runs)
