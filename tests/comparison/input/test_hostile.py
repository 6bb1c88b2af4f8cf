from __future__ import annotations

import io
import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.comparison.build import build
from jobs.comparison.input.load import load
from jobs.comparison.input.logs import TOO_LONG
from jobs.comparison.input.parse import REPORT_LIMIT, InvalidReport, parse
from jobs.comparison.input.report_collection import MAX_LINES_NAMED
from jobs.comparison.output.markdown import render_markdown
from jobs.errors import BadInput
from jobs.report import LINE_MARKER, SCHEMA_VERSION
from tests.comparison.hostile import (
    GOOD,
    TEMPLATE,
    TEXTS,
    VALUES,
    leaves,
    look_at,
    merge,
    mutated,
    read,
    with_value,
)
from tests.support.programs import rounds
from tests.support.reports import make_report, write_report

VERSION = f'"schema_version":"{SCHEMA_VERSION}"'.encode()
PATHS = [path for path, _ in leaves(TEMPLATE)]
STRINGS = [path for path, value in leaves(TEMPLATE) if isinstance(value, str)]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=20,
)


def take(count: int, seed: int) -> None:
    """Half of ``count`` inputs have their bytes changed, half a value in their structure."""
    source = random.Random(seed)  # noqa: S311
    for at in range(count // 2):
        loaded = read(mutated(source))
        if at % 20 == 0:
            merge(loaded)
    for _ in range(count - count // 2):
        document = with_value(source.choice(PATHS), source.choice(VALUES))
        loaded = read(json.dumps(document, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass"))
        if source.random() < 0.1:
            merge(loaded)


@pytest.mark.timeout(1800)
def test_merge_thousands_of_damaged_reports_is_safe() -> None:
    take(rounds(5000, 100_000), seed=2)


@pytest.mark.parametrize("path", STRINGS, ids=lambda path: ".".join(map(str, path)))
def test_merge_hostile_text_in_any_field_is_refused_or_escaped(path: tuple[Any, ...]) -> None:
    # Many of these say the same of different fields; a few texts do for each.
    for text in TEXTS[::8] if path[0] in {"telemetry", "null_reasons", "phases"} else TEXTS:
        loaded = read(json.dumps(with_value(path, text)).encode())
        comparison = merge(loaded)
        assert (comparison is None) == (len(loaded.runs) == 1) == bool(loaded.skipped)
        if comparison is not None and text.startswith("<"):
            assert text not in render_markdown(comparison)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_values)
def test_parse_json_of_no_report_is_refused(document: Any) -> None:
    with pytest.raises(InvalidReport):
        parse(json.dumps(document).encode(), origin="x")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PATHS), value=json_values)
def test_merge_any_value_anywhere_is_refused_or_escaped(path: tuple[Any, ...], value: Any) -> None:
    merge(read(json.dumps(with_value(path, value)).encode()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_parse_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidReport):
        parse(raw, origin="x")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"attempt":1', b'"attempt":1,"attempt":2', "duplicate key"),
        (b'"test_loss":0.15', b'"test_loss":NaN', "not valid JSON"),
        (b'"test_loss":0.15', b'"test_loss":Infinity', "not valid JSON"),
        (b'"test_loss":0.15', b'"test_loss":1e999', "results.test_loss"),
        (b'"test_loss":0.15', b'"test_loss":' + b"[" * 100_000, "recursion limit"),
        (b'"attempt":1', b'"attempt":' + b"1" * 5000, "number out of range"),
        (b'"run_id":"good"', b'"run_id":"../../x"', "run_id"),
        (b'"run_id":"good"', b'"run_id":"\\ud800"', "not valid JSON"),
        (VERSION, b'"schema_version":"2.7"', "schema version '2.7' cannot be read"),
    ],
)  # fmt: skip
def test_parse_refusal_names_the_reason(old: bytes, new: bytes, said: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidReport, match=said) as refusal:
        parse(GOOD.replace(old, new), origin="x.json")
    assert len(str(refusal.value)) < 1000
    assert "\n" not in str(refusal.value)


def test_parse_later_minor_version_is_read() -> None:
    assert parse(GOOD.replace(VERSION, b'"schema_version":"1.99","new":{}'), origin="x").run_id


def test_load_irregular_or_oversized_files_are_skipped(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "good.json")
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "device.json").symlink_to("/dev/zero")
    (tmp_path / "linked.json").symlink_to(tmp_path / "good.json")
    (tmp_path / "round.json").symlink_to(tmp_path / "round.json")
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(REPORT_LIMIT + 1)
    (tmp_path / "padded.json").write_bytes(b" " * (REPORT_LIMIT - len(GOOD)) + GOOD)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.json"))
        loaded = load([str(tmp_path)], io.BytesIO())
    assert [run.run_id for run in loaded.runs] == ["good", "torch-lenet-matched-1"]
    assert loaded.copies == 1
    reasons = {Path(skipped.source).name: skipped.reason for skipped in loaded.skipped}
    irregular = {"pipe.json", "pipe.log", "device.json", "round.json", "socket.json"}
    assert set(reasons) == {*irregular, "large.json"}
    assert {reasons[name] for name in irregular} == {"not a regular file"}
    assert "larger than 16 MiB" in reasons["large.json"]


def test_load_pipe_given_by_name_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BadInput, match="neither a file nor a folder"):
        load([str(tmp_path / "pipe.json")], io.BytesIO())


@pytest.mark.parametrize("name", [b"\x1b[2J.json", b"\xff\xfe.json", "\u202egnp.json".encode(), b"a\nb.json"])
def test_load_hostile_file_name_is_escaped(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(GOOD)
    loaded = load([str(tmp_path)], io.BytesIO())
    (run,) = loaded.runs
    assert run.source.isprintable()
    look_at(build(loaded))
    assert run.load_report().run_id == "good"


def test_load_path_with_null_character_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(["a\0b"], io.BytesIO())


def test_load_oversized_line_does_not_hide_the_next() -> None:
    marked = LINE_MARKER.encode()
    endless = marked + b"[" * (REPORT_LIMIT + 10)
    other = b"x" * (2 * REPORT_LIMIT + 10)
    loaded = load(["-"], io.BytesIO(b"\n".join([endless, other, marked + GOOD])))
    assert [run.run_id for run in loaded.runs] == ["good"]
    assert [(skipped.reason, skipped.lines) for skipped in loaded.skipped] == [(TOO_LONG, (1,))]


def test_load_many_damaged_lines_are_counted_and_few_named() -> None:
    marked = LINE_MARKER.encode()
    loaded = load(["-"], io.BytesIO((marked + b"{\n") * 5000 + marked + GOOD))
    (skipped,) = loaded.skipped
    assert (skipped.count, len(skipped.lines)) == (5000, MAX_LINES_NAMED)


@pytest.mark.parametrize(
    "line",
    [
        LINE_MARKER.encode() + GOOD[:500] + LINE_MARKER.encode() + GOOD,
        b"[pod/a/b] " + LINE_MARKER.encode() + GOOD + b"[pod/c/d] epoch 1/5",
        b"\rprogress 99 %\r" + LINE_MARKER.encode() + b"  " + GOOD + b"\r",
    ],
)
def test_load_two_writers_on_one_line_both_are_read(line: bytes) -> None:
    loaded = load(["-"], io.BytesIO(line + b"\n"))
    assert [run.run_id for run in loaded.runs] == ["good"]
    assert loaded.runs[0].load_report().run_id == "good"


def test_load_report_from_a_log_reads_its_bytes_again(tmp_path: Path) -> None:
    marked = LINE_MARKER.encode()
    (tmp_path / "pod.log").write_bytes("리눅스 \xff\n".encode() + b"pre " + marked + GOOD + b" post\n")
    (run,) = load([str(tmp_path / "pod.log")], io.BytesIO()).runs
    assert run.load_report() == parse(GOOD, origin="x")
    (tmp_path / "pod.log").write_text("gone")
    with pytest.raises(BadInput, match="has changed since it was read first"):
        run.load_report()
    (tmp_path / "pod.log").unlink()
    with pytest.raises(BadInput, match=r"cannot be read .* merge again"):
        run.load_report()
