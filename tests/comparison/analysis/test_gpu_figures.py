"""Each side's GPU figures come with the number of readings and their coverage, or with what was too short."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.output.csv import csv_lines
from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import compare, terminal
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.report import Report

SM = {"mean": 40.0, "p50": 40.0, "p95": 44.0, "max": 50.0, "n": 58, "coverage_ratio": 0.97, "quality": "ok"}
SHORT = "too short to judge: 1 s of training; use --repeat 30 or --epochs 30"


def _long(seed: int, n: int = 58) -> Report:
    changes: dict[str, Any] = {"training.gpu.sm_util_percent": SM | {"n": n}}
    return make_report(framework="tensorflow", gpu=True, seed=seed, changes=changes)


def _short(seed: int) -> Report:
    return make_report(framework="torch", gpu=True, seed=seed, epochs=1, images_per_s=60_000.0)


def _texts(*reports: Report) -> dict[str, str | None]:
    (section,) = compare(*reports, allow=("config.epochs",)).sections
    return {side.framework: side.gpu_text for side in section.sides}


def test_gpu_text_says_readings_coverage_and_what_is_too_short() -> None:
    texts = _texts(_long(1), _long(2, n=55), _short(1))
    text = texts["tensorflow"]
    assert text is not None
    assert text == (
        "GPU figures of 12 s of training (median of 2 runs); readings and coverage of a run, at least: "
        "utilization 120, 100 %; SM activity 55, 97 %; power 120, 100 %"
    )
    assert texts["torch"] == f"GPU utilization, power, energy {SHORT}"


def test_gpu_text_of_a_side_with_both_kinds_says_how_many_runs_are_too_short() -> None:
    text = _texts(_short(1), make_report(gpu=True, seed=2))["torch"]
    assert text is not None
    assert text.startswith("GPU figures of 12 s of training; ")
    assert text.endswith(f". GPU utilization of 1 run, power of 1 run, energy of 1 run {SHORT}")


@pytest.mark.parametrize(
    ("between_s", "named"), [(0.6, "GPU figures of 12 s of training, 5 % of it between the repeats; "), (0.1, "")]
)
def test_gpu_text_of_repeats_names_the_time_between_them_from_one_percent_on(between_s: float, named: str) -> None:
    repeats = {"trainings": 9, "images": 90_000, "train_s": 9.0, "between_s": between_s}
    text = _texts(make_report(gpu=True, changes={"results.repeats": repeats}))["torch"]
    assert text is not None
    assert text.startswith(named or "GPU figures of 12 s of training; ")


def test_gpu_text_without_a_gpu_is_missing() -> None:
    assert _texts(make_report(), make_report(framework="tensorflow")) == {"tensorflow": None, "torch": None}


def test_outputs_have_figures_readings_and_the_sentence() -> None:
    comparison = compare(_long(1), _long(2), _short(1), allow=("config.epochs",))
    outputs = {
        "terminal": " ".join(terminal(comparison).split()),
        "markdown": render_markdown(comparison).replace("\\", ""),
        "page": render_html(comparison, {}),
    }
    for name, text in outputs.items():
        assert SHORT in text, name
        assert "SM activity 58, 97 %" in text, name
        for label in ("GPU utilization", "GPU SM activity", "GPU power", "GPU energy per image"):
            assert label in text, (name, label)


def test_csv_has_readings_and_coverage_of_each_run() -> None:
    rows = [
        row
        for reports in ([_long(1)], [_short(1)], [make_report()])
        for row in csv.DictReader(csv_lines(compare(*reports)))
    ]
    long, short, cpu = rows
    assert (long["gpu_sm_util_percent"], long["gpu_sm_util_percent_readings"]) == ("40.0", "58")
    assert long["gpu_sm_util_percent_coverage_ratio"] == "0.97"
    assert float(long["gpu_energy_j_per_million_images"]) == pytest.approx(25_000, rel=0.02)
    # Too few readings are counted all the same.
    assert short["gpu_util_percent"] == ""
    assert 0 < int(short["gpu_util_percent_readings"]) < 20
    assert cpu["gpu_util_percent_readings"] == cpu["gpu_power_w_coverage_ratio"] == ""
