from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.render_csv import COLUMNS, runs_csv
from jobs.comparison.text import csv_cell
from tests.comparison.comparisons import TF_SPEEDS, compare, side
from tests.support.reports import make_report


def test_a_row_a_run_with_its_numbers_as_they_are() -> None:
    failed = make_report(framework="tensorflow", seed=9, status="failed", images_per_s=None)
    rows = list(csv.DictReader(io.StringIO(runs_csv(compare(*side("tensorflow", TF_SPEEDS), failed)))))
    assert [row["seed"] for row in rows] == ["1", "2", "3", "4", "5", "9"]
    assert [float(row["steady_images_per_s"]) for row in rows[:5]] == list(TF_SPEEDS)
    assert (rows[5]["steady_images_per_s"], rows[5]["status_reason"]) == ("", "the run is failed")
    assert set(rows[0]) == set(COLUMNS)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("\t=1", r"'\t=1"),
        ("\r=1", r"'\r=1"),
        ("plain = text", "plain = text"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


@given(st.text())
def test_a_cell_is_one_printable_line_that_starts_nothing(text: str) -> None:
    cell = csv_cell(text)
    assert cell.isprintable()
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
