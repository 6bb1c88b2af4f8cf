"""Input that used to be dropped, taken for something else, or waited for without end."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.comparison.build import build
from jobs.comparison.input import logs
from jobs.comparison.input.files import read_report
from jobs.comparison.input.load import Loaded, _read_log_file, load
from jobs.comparison.input.logs import TOO_LARGE, TOO_LONG
from jobs.comparison.input.parse import REPORT_LIMIT, InvalidReport, parse
from jobs.comparison.input.report_collection import IGNORED, MAX_LINES_NAMED, ReportCollection, Skipped
from jobs.comparison.output.html.timelines import timelines
from jobs.errors import BadInput
from jobs.report import LINE_MARKER, to_line
from jobs.report.started import STARTED_MARKER
from tests.comparison.hostile import GOOD, TEMPLATE, with_value
from tests.support.reports import make_report, write_report

MARKED = LINE_MARKER.encode() + GOOD


def load_paths(*paths: Path, leave_out: tuple[Path, ...] = ()) -> Loaded:
    return load([str(path) for path in paths], io.BytesIO(), leave_out=leave_out)


def run_ids(loaded: Loaded) -> list[str]:
    return [run.run_id for run in loaded.runs]


# Two reports of one run and attempt are copies only if they say the same in everything.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("results.test_loss", 0.16),
        ("results.train_loss", 0.21),
        ("finished_at_utc", "2026-01-02T03:05:06Z"),
        ("environment.python_version", "3.13.2"),
        ("phases.0.host.rss_peak_bytes", 1_000_000_001),
        ("phases.0.host.cpu_percent.p95", 100.5),
        ("telemetry.sampler.taken", 99),
        ("results.epochs.0.train_loss", 0.51),
        ("null_reasons.parity", "not asked for, truly"),
        ("warnings", [{"code": "c", "message": "m"}]),
    ],
)
def test_load_two_reports_of_a_run_differing_in_any_field_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    write_report(make_report(timeseries=True), tmp_path / "1.json")
    other = make_report(timeseries=True, changes={field: value})
    write_report(other, tmp_path / "2.json")
    (tmp_path / "3.log").write_text(to_line(other) + "\n")
    named = field.replace(".0", "[]").removesuffix("[].code").split("[]")[0]
    for name in ("2.json", "3.log"):
        with pytest.raises(BadInput, match="different reports of one run") as refusal:
            load_paths(tmp_path / "1.json", tmp_path / name)
        assert f": {named}" in str(refusal.value)


def test_load_two_reports_of_a_run_differing_in_trace_or_samples_are_refused(tmp_path: Path) -> None:
    parity = {
        "steps": [{"loss": 2.0, "grad_norm": 0.5}],
        "initial_weights_sha256": "aa" * 32,
        "first_logits": [[0.0, 1.0]],
        "weight_norms": {"conv1.kernel": 2.0},
    }
    write_report(make_report(timeseries=True, changes={"parity": parity}), tmp_path / "1.json")
    changed = {**parity, "first_logits": [[0.0, 1.5]]}
    write_report(make_report(timeseries=True, changes={"parity": changed}), tmp_path / "2.json")
    with pytest.raises(BadInput, match=r": parity\.first_logits\[\]\[\] differs"):
        load_paths(tmp_path / "1.json", tmp_path / "2.json")
    for name, power_w in (("3.json", 1.0), ("4.json", 2.0)):
        write_report(make_report(timeseries=True, changes={"timeseries.values": [[power_w, None]]}), tmp_path / name)
    with pytest.raises(BadInput, match=r": timeseries\.values\[\]\[\] differs"):
        load_paths(tmp_path / "3.json", tmp_path / "4.json")


def test_load_two_reports_of_a_run_differing_in_an_unknown_field_are_refused(tmp_path: Path) -> None:
    for name, value in (("1.json", 1), ("2.json", 2)):
        (tmp_path / name).write_text(json.dumps({**TEMPLATE, "later": {"field": value}}))
    with pytest.raises(BadInput, match=r": later\.field differs"):
        load_paths(tmp_path / "1.json", tmp_path / "2.json")


def test_load_same_report_in_another_layout_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(TEMPLATE, indent=1))
    (tmp_path / "2.json").write_text(json.dumps(TEMPLATE, sort_keys=True))
    assert load_paths(tmp_path).copies == 1
    # Three of them: the one with samples is held against each that comes.
    (tmp_path / "3.log").write_text(to_line(parse(GOOD.replace(b'"good"', b'"bad"'), origin="x")) + "\n")
    assert load_paths(tmp_path).copies == 2


# A report line is found wherever it stands, in a line of any length.


@pytest.mark.parametrize("behind", [REPORT_LIMIT - 5, REPORT_LIMIT, REPORT_LIMIT + 1, 2 * REPORT_LIMIT + 3])
def test_load_report_late_in_a_long_line_is_read(tmp_path: Path, behind: int) -> None:
    path = tmp_path / "pod.log"
    path.write_bytes(b"first\n" + b"x" * behind + MARKED + b"\nlast\n")
    loaded = load_paths(path)
    assert run_ids(loaded) == ["good"]
    assert loaded.skipped == ()
    assert loaded.runs[0].load_report() == parse(GOOD, origin="x")


def test_load_report_between_oversized_markers_is_read() -> None:
    endless = LINE_MARKER.encode() + b"[" * (2 * REPORT_LIMIT)
    loaded = load(["-"], io.BytesIO(b"\n" + endless + MARKED + endless))
    assert run_ids(loaded) == ["good"]
    assert [(skipped.reason, skipped.count, skipped.lines) for skipped in loaded.skipped] == [(TOO_LONG, 2, (2, 2))]


def test_load_report_before_a_long_rest_of_its_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pod.log"
    path.write_bytes(MARKED + b" " + b"x" * (REPORT_LIMIT + 5) + b"\n")
    (run,) = load_paths(path).runs
    assert run.load_report() == parse(GOOD, origin="x")


STARTED = STARTED_MARKER.encode() + b"{}"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(st.lists(st.sampled_from([b"x", b"xyzzy" * 9, b"{", LINE_MARKER.encode()[:-1], STARTED, MARKED]))),
    limit=st.integers(len(MARKED), 3 * len(MARKED)),
)
def test_marked_any_piece_size_yields_every_report(lines: list[list[bytes]], limit: int) -> None:
    raw = b"\n".join(b"".join(parts) for parts in lines)
    expected = raw.count(MARKED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "REPORT_LIMIT", limit)
        seen = [
            (number, raw[offset : offset + len(payload)] == payload, payload.startswith(GOOD))
            for number, offset, marker, payload in logs._marked(io.BytesIO(raw), len(raw))
            if marker == LINE_MARKER.encode()
        ]
    assert all(in_place for _, in_place, _ in seen)
    assert sum(good for *_, good in seen) == expected
    assert all(MARKED in raw.split(b"\n")[number - 1] for number, _, good in seen if good)


# Reading is strict; test_every_field.py tries each field.


@pytest.mark.parametrize("value", ["1767323045", "true", "2026-01-02", "2026-01-02T03:04:05", "", "x"])
def test_parse_incomplete_time_is_refused(value: str) -> None:
    with pytest.raises(InvalidReport, match="started_at_utc"):
        parse(json.dumps(with_value(("started_at_utc",), value)).encode(), origin="x")


def test_parse_integer_for_an_amount_is_read() -> None:
    report = parse(json.dumps(with_value(("results", "test_loss"), 1)).encode(), origin="x")
    assert report.results.test_loss == 1.0


# Nothing without an end is waited for.


def test_load_log_of_terabytes_is_refused(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "good.json")
    with (tmp_path / "sparse.log").open("wb") as stream:
        stream.truncate(4 * 10**12)
    (skipped,) = load_paths(tmp_path).skipped
    assert TOO_LARGE in skipped.reason
    with pytest.raises(BadInput, match="larger than 4 GiB; give its lines with MNIST_JOBS_REPORT alone"):
        load_paths(tmp_path / "sparse.log")


def test_load_endless_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_LIMIT", len(MARKED) + 3)
    assert run_ids(load(["-"], io.BytesIO(MARKED + b"\nxx"))) == ["good"]
    with Path("/dev/zero").open("rb") as endless, pytest.raises(BadInput, match="'standard input' is larger than"):
        load(["-"], endless)


def test_load_link_to_the_kernel_log_is_skipped(tmp_path: Path) -> None:
    kernel_log = Path("/proc/kmsg")
    if not kernel_log.exists():
        pytest.skip("this kernel shows no /proc/kmsg")
    write_report(make_report(), tmp_path / "good.json")
    (tmp_path / "kernel.log").symlink_to(kernel_log)
    (tmp_path / "kernel.json").symlink_to(kernel_log)
    assert len(load_paths(tmp_path).skipped) == 2


def test_marked_growing_log_is_read_to_its_first_size(tmp_path: Path) -> None:
    """Whoever writes on may write as fast as it is read: each line that is read makes the file longer here."""
    path = tmp_path / "pod.log"
    path.write_bytes(MARKED + b"\n")

    class Growing(io.BufferedReader):
        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            with path.open("ab") as stream:
                stream.write(b"{}\n" * 10_000)
            return line

    size = path.stat().st_size
    with Growing(path.open("rb", buffering=0)) as stream:
        found = [payload for *_, payload in logs._marked(stream, size)]
    assert [payload.strip() for payload in found] == [GOOD]
    assert path.stat().st_size < size + 100_000


# Folders of any depth, and links.


def test_load_1500_nested_folders_are_searched(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "top.json")
    folders = [tmp_path]
    for _ in range(1500):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    deepest = write_report(make_report(seed=2), folders[-1] / "deep.json")
    try:
        assert [run.seed for run in load_paths(tmp_path).runs] == [1, 2]
    finally:
        # What cleans up after tests calls itself for every folder.
        deepest.unlink()
        for folder in reversed(folders[1:]):
            folder.rmdir()


def test_load_path_too_long_is_skipped(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "top.json")
    start = Path.cwd()
    depth = 0
    try:
        os.chdir(tmp_path)
        for _ in range(30):
            Path("n" * 200).mkdir()
            os.chdir("n" * 200)
            depth += 1
        loaded = load_paths(tmp_path)
    finally:
        for _ in range(depth):
            os.chdir("..")
            Path("n" * 200).rmdir()
        os.chdir(start)
    assert len(loaded.runs) == 1
    (skipped,) = loaded.skipped
    assert "File name too long" in skipped.reason


def test_load_target_of_an_excluded_link_is_read(tmp_path: Path) -> None:
    report = write_report(make_report(), tmp_path / "reports/a.json")
    output = tmp_path / "reports/comparison"
    output.mkdir()
    (output / "runs.csv").symlink_to(report)
    (output / "comparison.json").write_text("{}")
    loaded = load_paths(tmp_path / "reports", leave_out=(output / "runs.csv", output / "comparison.json"))
    assert run_ids(loaded) == ["torch-lenet-matched-1"]
    assert loaded.skipped == ()


# A file that changes between its two reads is told from what was read first.


def test_load_report_changed_file_is_refused(tmp_path: Path) -> None:
    path = write_report(make_report(timeseries=True), tmp_path / "a.json")
    loaded = load_paths(path)
    write_report(make_report(timeseries=True, seed=7), path)
    with pytest.raises(BadInput, match="has changed since it was read first"):
        loaded.runs[0].load_report()
    ((missing,),) = timelines(loaded.runs).values()
    assert "has changed since it was read first" in missing.reason  # type: ignore[union-attr]


def test_load_copy_of_a_changed_report_in_a_log_is_refused(tmp_path: Path) -> None:
    """The run is known from a file that has changed by now. The log's line is not damaged; the file is named."""
    first = write_report(make_report(timeseries=True), tmp_path / "a.json")
    (tmp_path / "b.log").write_text(to_line(make_report(timeseries=True)))
    collection = ReportCollection()
    collection.add(read_report(str(first)))
    write_report(make_report(timeseries=True, seed=7), first)
    with pytest.raises(BadInput, match=r"a\.json' has changed since it was read first"):
        _read_log_file(str(tmp_path / "b.log"), collection)
    assert collection.skipped == {}


def test_build_changed_parity_trace_is_refused(tmp_path: Path) -> None:
    parity = {
        "steps": [{"loss": 2.0, "grad_norm": 0.5}],
        "initial_weights_sha256": "aa" * 32,
        "first_logits": [[0.0, 1.0]],
        "weight_norms": {"conv1.kernel": 2.0},
    }
    path = tmp_path / "pod.log"
    path.write_text(to_line(make_report(changes={"parity": parity})))
    loaded = load_paths(path)
    path.write_text(to_line(make_report(changes={"parity": parity, "results.test_loss": 0.16})))
    with pytest.raises(BadInput, match="has changed since it was read first"):
        build(loaded)


# Names that are passed over are said.


def test_load_files_with_similar_names_are_counted_and_named(tmp_path: Path) -> None:
    report = write_report(make_report(), tmp_path / "a.json").read_bytes()
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(report))
    for name in ("c.JSON", "d.jsonl", "e.log.1", "deep.LOG", "f.gz", "g.json~", "h.STARTED"):
        (tmp_path / name).write_bytes(report)
    for name in ("weights.safetensors", "notes.txt", "json", ".g.json.gz"):
        (tmp_path / name).write_bytes(report)
    loaded = load_paths(tmp_path)
    assert len(loaded.runs) == 1
    names = f"{tmp_path}/b.json.gz, {tmp_path}/c.JSON, {tmp_path}/d.jsonl and 5 more"
    assert loaded.skipped == (Skipped(source=names, reason=IGNORED, count=8),)
    # In the files that the merge writes as well, in whatever order the folders are named.
    (skipped,) = build(loaded).skipped
    assert (skipped.source, skipped.count) == (names, 8)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.json.gz").write_bytes(b"")
    (tmp_path / "other/a.json").write_bytes(report)
    assert load_paths(tmp_path / "other", tmp_path).skipped == load_paths(tmp_path, tmp_path / "other").skipped
    for path in (tmp_path / "a.json", tmp_path / "other/a.json"):
        path.unlink()
    with pytest.raises(BadInput, match=r"holds no report \(.*b\.json\.gz, .* and 6 more: not read for its name"):
        load_paths(tmp_path)


def test_load_no_similar_names_says_nothing(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "a.json")
    (tmp_path / "notes.txt").write_text("x")
    assert load_paths(tmp_path).skipped == ()


def test_load_many_damaged_markers_name_few_lines() -> None:
    loaded = load(["-"], io.BytesIO((LINE_MARKER.encode() + b"{ ") * 50 + MARKED))
    assert run_ids(loaded) == ["good"]
    assert (loaded.skipped[0].count, len(loaded.skipped[0].lines)) == (50, MAX_LINES_NAMED)
