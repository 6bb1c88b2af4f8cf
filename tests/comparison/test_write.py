from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobs.comparison.model import SCHEMA_VERSION, Comparison
from jobs.comparison.write import output_files
from jobs.errors import NotWritable
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, side, write_all
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["comparison.html", "comparison.json", "comparison.md", "runs.csv"]


def test_comparison_json_is_read_back_by_its_own_model(tmp_path: Path) -> None:
    comparison = compare(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS))
    json, *_ = write_all(comparison, tmp_path)
    assert Comparison.model_validate_json(json.read_text(encoding="utf-8")) == comparison
    assert comparison.schema_version == SCHEMA_VERSION


def test_an_earlier_comparison_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    write_all(compare(make_report()), folder)
    write_all(compare(make_report(seed=2)), folder)
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in output_files(folder))


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="--output-dir"):
        write_all(compare(make_report()), tmp_path / "file/out")


def test_a_failed_write_leaves_the_earlier_comparison_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, markdown, *_ = write_all(compare(make_report()), tmp_path)
    before = markdown.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NotWritable, match="No space left"):
        write_all(compare(make_report(seed=2)), tmp_path)
    assert markdown.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
