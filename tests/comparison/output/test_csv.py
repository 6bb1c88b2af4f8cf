from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.output.csv import COLUMNS, csv_lines
from jobs.comparison.text import csv_cell
from tests.comparison.comparisons import TF_SPEEDS, compare, side
from tests.support.reports import make_report


def test_csv_has_a_row_for_each_run_with_exact_numbers() -> None:
    failed = make_report(framework="tensorflow", seed=9, status="failed", images_per_s=None)
    rows = list(csv.DictReader(csv_lines(compare(*side("tensorflow", TF_SPEEDS), failed))))
    assert [row["seed"] for row in rows] == ["1", "2", "3", "4", "5", "9"]
    assert [float(row["steady_images_per_s"]) for row in rows[:5]] == list(TF_SPEEDS)
    assert (rows[5]["steady_images_per_s"], rows[5]["status_reason"]) == ("", "the run is failed")
    assert set(rows[0]) == set(COLUMNS)


EXCEL_LIMIT = 32_767
"""Of one cell, in UTF-16 units: a character beyond the first 65,536 counts twice."""
FORMS = tuple("＝＋－＠﹦﹢﹣﹫−")  # noqa: RUF001
"""Full-width and small forms and the minus sign, which some spreadsheets read as the plain characters."""


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


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
        ("a;=1+1", "a;'=1+1"),
        ('a; "@x', "a;' \"@x"),
        ("a,-1|+1", "a,'-1|'+1"),
        (";＝1", ";'＝1"),  # noqa: RUF001
        ("﹦1+1", "'﹦1+1"),
        ("a;﹢1|﹣1,﹫x", "a;'﹢1|'﹣1,'﹫x"),
        ("−1", "'−1"),  # noqa: RUF001
        ("a;b=1", "a;b=1"),
        ("", ""),
    ],
)
def test_csv_cell_with_a_formula_is_quoted(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


@given(st.text())
def test_csv_cell_of_any_text_is_one_printable_line(text: str) -> None:
    cell = csv_cell(text)
    assert cell.isprintable()
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@given(st.lists(st.sampled_from([*";,|=+-@", *FORMS, " ", '"', "x", "1", "\t", "\n"])))
def test_csv_cell_split_at_another_separator_has_no_formula(parts: list[str]) -> None:
    cell = csv_cell("".join(parts))
    for separator in ";,|":
        for part in cell.split(separator):
            assert not part.strip(' "').startswith((*"=+-@", *FORMS))


def test_csv_cell_of_a_thousand_devices_fits_a_spreadsheet() -> None:
    device = make_report(gpu=True).devices[0].model_dump()
    devices = [{**device, "uuid": f"GPU-{index:04}-{'x' * 580}"} for index in range(1000)]
    text = "".join(csv_lines(compare(make_report(gpu=True, changes={"devices": devices}))))
    (row,) = csv.DictReader(io.StringIO(text))
    assert len(row["gpu_uuids"]) < EXCEL_LIMIT
    assert row["gpu_uuids"].endswith("characters)")
    texts = [character * 100_000 for character in ("x", "\U0010ffff", "\U0001f600", "x\U0001f600", ";=", '"')]
    assert max(utf16_units(csv_cell(text)) for text in texts) < EXCEL_LIMIT
    assert csv_cell("\U0001f600" * 20_000) == "\U0001f600" * 16_000 + "… (20,000 characters)"


def test_run_row_of_a_thousand_devices_keeps_a_hundred() -> None:
    device = make_report(gpu=True).devices[0].model_dump()
    devices = [{**device, "uuid": f"GPU-{index}"} for index in range(1000)]
    (section,) = compare(make_report(gpu=True, changes={"devices": devices})).sections
    assert section.runs[0].gpu_uuids[-2:] == ["GPU-99", "… (1,000 devices)"]
