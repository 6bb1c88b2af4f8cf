from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadInput, NotWritable
from jobs.exit_codes import ExitCode
from jobs.report import LINE_MARKER, from_line, parse, read, to_line, write
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

LINE = to_line(make_report(timeseries=True))


def test_report_read_back_is_the_same(tmp_path: Path) -> None:
    report = make_report(gpu=True, timeseries=True)
    path = write(report, tmp_path / "new" / "folder")
    assert read(path) == report
    assert path.name == f"{report.run_id}-a1.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_write_leaves_nothing_but_the_report(tmp_path: Path) -> None:
    path = write(make_report(), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_write_beside_a_report_of_the_same_name_replaces_nothing(tmp_path: Path) -> None:
    first = write(make_report(accuracy=0.9), tmp_path)
    second = write(make_report(accuracy=0.8), tmp_path)
    assert first != second
    assert read(first).results.test_accuracy_ratio == 0.9
    assert read(second).results.test_accuracy_ratio == 0.8


def test_write_on_a_volume_without_links_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    first, second = (write(make_report(seed=seed, run_id="same"), tmp_path) for seed in (1, 2))
    assert [read(path).config.seed for path in (first, second)] == [1, 2]
    assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_write_by_eight_threads_keeps_every_report(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def write_one(seed: int) -> None:
        barrier.wait()
        write(make_report(run_id="same", seed=seed), tmp_path)

    threads = [threading.Thread(target=write_one, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(path).config.seed for path in tmp_path.iterdir()) == list(range(8))


def test_write_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match=r"report folder .*file/reports.* choose another with --report-dir") as caught:
        write(make_report(), tmp_path / "file" / "reports")
    assert caught.value.exit_code is ExitCode.REPORT_NOT_WRITABLE


@given(prefix=st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=60))
def test_from_line_behind_any_prefix_is_the_report(prefix: str) -> None:
    report = from_line(prefix + LINE, origin="log")
    assert report is not None
    assert report.run_id == make_report().run_id


def test_to_line_leaves_the_time_series_out_with_its_reason() -> None:
    report = from_line(LINE, origin="log")
    assert report is not None
    assert report.timeseries is None
    assert report.unexplained_nulls() == []


@given(length=st.integers(min_value=len(LINE_MARKER), max_value=len(LINE) - 1))
def test_from_line_of_a_line_cut_short_is_refused(length: int) -> None:
    with pytest.raises(BadInput, match="'log' is no report"):
        from_line(LINE[:length], origin="log")


def test_from_line_of_another_line_is_none() -> None:
    assert from_line("epoch 1/5  train loss 0.4", origin="log") is None


@given(text=st.text(max_size=200))
def test_parse_of_any_text_is_refused_with_its_origin(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text, origin="some file")
    assert "some file" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "null", "[]", '{"schema_version": "1.0"}'])
def test_parse_of_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(text, origin="some file")


def test_read_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.json"):
        read(tmp_path / "absent.json")
