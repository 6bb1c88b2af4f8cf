"""The share of the device's peak: of each run, of a side, and in every output."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING

import pytest

from jobs.comparison.input.metrics import METRIC_BY_NAME, Missing
from jobs.comparison.output.csv import csv_lines
from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.tables import metric_of, metric_table
from jobs.comparison.output.write import json_pieces
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, only_section, terminal
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.choices import FrameworkName
    from jobs.comparison.schema import Comparison
    from jobs.report import Report

NOT_MEASURED = "not measured: use --measure-peak"
SHARE, PEAK = METRIC_BY_NAME["ceiling_share_ratio"], METRIC_BY_NAME["ceiling_flop_per_s"]


def _side(framework: FrameworkName, speeds: tuple[float, ...], peaks: tuple[float | None, ...]) -> list[Report]:
    return [
        make_report(framework=framework, seed=seed, images_per_s=speed, peak_flop_per_s=peak)
        for seed, (speed, peak) in enumerate(zip(speeds, peaks, strict=True), start=1)
    ]


def _mixed() -> Comparison:
    """Shares of 25 %, 20 % and 50 % on one side; on the other no run measured its peak."""
    measured = _side("tensorflow", (10_000.0, 10_000.0, 10_000.0, 9_000.0), (4e10, 5e10, 2e10, None))
    return compare(*measured, *_side("torch", (12_000.0, 12_100.0), (None, None)))


def test_share_without_a_peak_is_missing_with_the_reason() -> None:
    report = make_report()
    assert SHARE.of(report) == PEAK.of(report) == Missing(NOT_MEASURED)


def test_share_without_a_speed_is_missing_and_the_peak_is_there() -> None:
    reason = "no step followed the first one"
    changes = {"null_reasons": {"results.ceiling_share_ratio": reason}}
    report = make_report(images_per_s=None, peak_flop_per_s=4e10, changes=changes)
    assert SHARE.of(report) == Missing(reason)
    assert PEAK.of(report) == 4e10


def test_side_has_the_median_share_of_the_runs_that_measured_it() -> None:
    (section,) = _mixed().sections
    tensorflow, torch = (metric_of(side, "ceiling_share_ratio") for side in section.sides)
    assert (tensorflow.n, tensorflow.median, tensorflow.minimum, tensorflow.maximum) == (3, 0.25, 0.2, 0.5)
    assert [(one.reason, one.runs) for one in tensorflow.unmeasured] == [(NOT_MEASURED, 1)]
    assert (torch.n, torch.median) == (0, None)
    assert [(one.reason, one.runs) for one in torch.unmeasured] == [(NOT_MEASURED, 2)]


def test_share_changes_neither_comparability_nor_verdict() -> None:
    none, half = (None,) * 5, (4e10, None, 4e11, None, 4e12)
    bare = only_section(*_side("tensorflow", TF_SPEEDS, none), *_side("torch", TORCH_SPEEDS, none))
    mixed = only_section(*_side("tensorflow", TF_SPEEDS, half), *_side("torch", TORCH_SPEEDS, half[::-1]))
    assert mixed.verdict == bare.verdict
    assert mixed.verdict.kind == "faster"
    assert mixed.differences == bare.differences
    # Each framework measures a peak of its own, so the sides' figures have neither ratio nor difference.
    assert mixed.ratios == bare.ratios
    last = {row[0]: row[-1] for row in metric_table(mixed).rows}
    assert (last[SHARE.heading], last[PEAK.heading], last["test accuracy, %"]) == ("—", "—", "+0.00 points")


def test_outputs_have_share_and_peak_and_why_they_are_missing() -> None:
    comparison = _mixed()
    page = re.sub(r"<[^>]+>", "|", render_html(comparison, {}))
    markdown = render_markdown(comparison).replace("\\", "")
    cells = ("25.00, n=3 (22.50\N{EN DASH}37.50)", f"— ({NOT_MEASURED})", "—")
    assert f"| share of the matrix-product peak, % | {' | '.join(cells)} |" in markdown
    assert f"|share of the matrix-product peak, %||{'||'.join(cells)}|" in page
    shown = re.sub(r"\x1b\[[0-9;]*m|\s+", "", terminal(comparison))
    assert "25.00,n=3" in shown
    for text in (markdown, page):
        assert "matrix-product peak, FLOP/s" in text
        assert "4.000e+10" in text
    assert f"| share of the matrix-product peak | torch | 2 runs | {NOT_MEASURED} |" in markdown


def test_csv_and_json_have_the_share_of_each_run() -> None:
    comparison = _mixed()
    rows = list(csv.DictReader(csv_lines(comparison)))
    assert [row["ceiling_share_ratio"] for row in rows] == ["0.25", "0.2", "0.5", "", "", ""]
    assert [row["ceiling_flop_per_s"] for row in rows] == [
        "40000000000.0",
        "50000000000.0",
        "20000000000.0",
        "",
        "",
        "",
    ]
    document = json.loads(b"".join(json_pieces(comparison)))
    runs = document["sections"][0]["runs"]
    assert [run["metrics"]["ceiling_share_ratio"] for run in runs] == [0.25, 0.2, 0.5, None, None, None]
    assert {run["missing"].get("ceiling_share_ratio") for run in runs[3:]} == {NOT_MEASURED}


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0.00"), (4e-7, "4.000e-05"), (4e-4, "0.040"), (1.25, "125.00"), (1e28, "1.000e+30")]
)
def test_share_is_shown_in_percent_and_a_small_one_not_as_zero(share: float, shown: str) -> None:
    assert SHARE.shown(share) == shown
