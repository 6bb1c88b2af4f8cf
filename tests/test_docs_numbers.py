"""The pages have the numbers of the code, and figures that commands measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs import __version__
from jobs.checkpoint import codec
from jobs.comparison import fields
from jobs.comparison import text as comparison_text
from jobs.comparison.analysis import (
    fleet,
    fleet_limit,
    gate_metrics,
    gate_shift,
    order,
    permutation,
    robust,
    statistics,
    stragglers,
    verdict,
)
from jobs.comparison.input import files, logs, metrics, parse, run_summary
from jobs.comparison.output import markdown
from jobs.comparison.output.html import page as html_page
from jobs.comparison.output.html import runs_figure
from jobs.duel import run, stopping
from jobs.recipes import RECIPES, model_flop_per_image
from jobs.report import measuring
from jobs.report.schema import GpuPhase, HostPhase
from jobs.telemetry import monitor, validity
from jobs.telemetry.sampler import loop
from jobs.telemetry.validity import SUSPECT_CODES
from jobs.training.parity_trace import MAX_ROUNDING_STATES
from tests.support.pages import PAGES, ROOT, read_page, words_of

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = ROOT / "docs" / "results"
IN_WORDS = {3: "three", 5: "five", 8: "eight"}


def test_recipes_page_has_the_numbers_of_the_recipes() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for recipe in RECIPES.values():
        assert f"{recipe.parameter_count:,}" in text
        assert f"{model_flop_per_image(recipe):,}" in text
        for dataset, references in recipe.reference_accuracy.items():
            name = {"mnist": "MNIST"}.get(dataset, dataset)
            assert f"| `{recipe.name}` | {name} | {', '.join(map(str, references))} |" in text


def test_telemetry_page_has_every_metric_and_cause() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    assert set(GpuPhase.model_fields) <= named
    assert set(HostPhase.model_fields) <= named
    causes = re.findall(r"^\| (`(?:gpu|cpu|resumed)_[^|]+) \|", text.partition("## When to believe")[2], re.MULTILINE)
    assert {name for row in causes for name in re.findall(r"`([a-z_]+)`", row)} >= SUSPECT_CODES


def test_duel_page_has_the_numbers_of_the_code() -> None:
    text = " ".join(read_page(ROOT / "docs" / "duel.md").split())
    for figure in (
        f"With fewer than {stopping.MIN_BLOCKS}, a sign-flip test",
        f"from {stopping.MIN_BLOCKS} blocks on, once the {100 * stopping.CONFIDENCE:.0f} % interval",
        f"After more than {run.MAX_LOST_RUNS} lost runs",
        f"at least {stopping.CLEAR_EFFECT:g} times the spread",
    ):
        assert figure in text, figure


def test_comparison_page_has_the_numbers_of_the_code() -> None:
    text = words_of("comparison.md")
    verdict_runs = IN_WORDS[statistics.RUNS_FOR_A_VERDICT]
    for figure in (
        f"{100 * (statistics.SMALLEST_EFFECT - 1):.0f} %",
        f"{100 * statistics.CONFIDENCE:.0f} % interval",
        f"{statistics.RESAMPLES:,} resamples",
        f"p of at most {statistics.ALPHA:g}",
        f"at most {statistics.FAMILYWISE_ALPHA:g} after Holm",
        f"over {100 * statistics.UNSTABLE_SPREAD:.0f} % of its median",
        f"{100 * verdict.MAX_FAILURE_RATE_GAP:.0f} points",
        f"at most {100 * gate_metrics.GATE_ALPHA:.0f} % of gates",
        f"beyond {100 * gate_metrics.TOLERANCE_CAP:.0f} %",
        f"a spread of {100 * gate_shift.ASSUMED_DRIFT:.0f} % between days",
        f"furthest {100 * robust.TRIMMED_RATIO:.0f} %",
        f"{100 * gate_metrics.ACCURACY_FLOOR:.1f} points",
        f"more than {fleet.SUSPICIOUS_SCORE:g} robust standard deviations",
        f"fewer than {fleet_limit.NODES_TO_SEE_TAILS} nodes",
        f"{IN_WORDS[fleet.RUNS_AGAIN]} times each",
        f"at most {parse.REPORT_LIMIT // 1024**2} MiB",
        f"at most {logs.LOG_LIMIT // 1024**3} GiB",
        "more than 200 levels",
        "A number above 1e30, or below 1e-30",
        f"at most {comparison_text.CELL_LIMIT:,} characters",
        f"At most {run_summary.ITEMS_LIMIT} devices",
        f"all permutations if there are at most {permutation.MAX_EXACT:,}, else {statistics.RESAMPLES:,} seeded",
        f"above {permutation.MAX_PERMUTED} runs on a side, or {permutation.MAX_PERMUTED} blocks",
        f"more than {order.MAX_MEMORY_EXCESS:g} times the variance",
        f"a steady drift not more than {order.MAX_DRIFT_EXCESS:g} times",
        f"{gate_metrics.RATIO_FLOOR:.0%}".replace("%", " %") + ", and for accuracy",
        f"{verdict_runs.capitalize()} runs per side, or {IN_WORDS[permutation.UNITS_FOR_SIGNS]} blocks",
        f"fewer than {verdict_runs} on a side",
        f"The baseline needs {verdict_runs} completed runs",
        f"From {IN_WORDS[fleet.NODES_FOR_OUTLIERS]} nodes on",
        (
            f"above {stragglers.SMALLEST_SLOWDOWN:.2f} in at least {100 * stragglers.SLOW_EPOCHS_RATIO:.0f} % "
            "of the epochs"
        ),
        f"It needs {IN_WORDS[stragglers.EPOCHS_NEEDED]} epochs",
        f"at most {markdown.MAX_ROWS} rows per table",
        f"up to {runs_figure.MAX_MARKS} runs per side and {html_page.MAX_ROWS} rows per table",
        f"From {files.PARALLEL_THRESHOLD:,} files on",
        f"one process per core, at most {IN_WORDS[files.MAX_WORKERS]}",
    ):
        assert figure in text, figure
    for field in fields.FIELDS:
        assert f"`{field.path}`" in text
    assert metrics.MAX_MAGNITUDE == 1e30
    parse.parse_json(b"[" * 200 + b"1" + b"]" * 200, origin="200 levels")
    with pytest.raises(parse.InvalidReport):
        parse.parse_json(b"[" * 201 + b"1" + b"]" * 201, origin="201 levels")


def test_telemetry_page_has_the_limits_of_the_code() -> None:
    text = words_of("telemetry.md")
    throttled = f"more than {100 * validity.THROTTLED_RATIO:.0f} % of training"
    for figure in (
        f"reduced the clocks for {throttled}",
        f"stopped the job for {throttled}",
        f"more than {validity.OTHERS_MEMORY_BYTES // 2**20} MiB",
        f"more than {validity.OTHERS_UTIL_PERCENT:.0f} % utilization",
        f"below {validity.STARVED_UTIL_PERCENT:.0f} % and the main thread above {validity.BUSY_THREAD_PERCENT:.0f} %",
        f"above {100 * validity.ENERGY_TOLERANCE_RATIO:.0f} % difference",
        (
            f"below {measuring.MIN_READINGS} readings, {measuring.MIN_DURATION_S:.0f} s or "
            f"{100 * measuring.MIN_COVERAGE_RATIO:.0f} % coverage"
        ),
        f"late readings (more than {1e3 * loop.LATE_THRESHOLD_S:.0f} ms)",
        "Stopping takes at most 2 s",
    ):
        assert figure in text, figure
    # tests/telemetry/test_sampler_process.py measures the whole stop.
    assert monitor.STOP_TIMEOUT_S < 2


def test_other_pages_have_the_limits_of_the_code() -> None:
    budget_gb = dict(re.findall(r"^budget_gb_(\S+) := (\S+)", read_page(ROOT / "docker/images.mk"), re.MULTILINE))
    for page, figure in (
        ("docker.md", f"`mnist-tf` exceeds {budget_gb['mnist-tf']} GB or `mnist-torch` {budget_gb['mnist-torch']} GB"),
        ("fairness.md", f"up to {MAX_ROUNDING_STATES + 1} states"),
        ("reliability.md", f"format is not {codec.FORMAT.split()[-1]},"),
        ("report.md", f"more than {100 * validity.THROTTLED_RATIO:.0f} % of training"),
        ("report.md", f"fewer than {measuring.MIN_READINGS} readings, less than {measuring.MIN_DURATION_S:.0f} s, or"),
        ("report.md", f"or less than {100 * measuring.MIN_COVERAGE_RATIO:.0f} % coverage"),
    ):
        assert figure in words_of(page), (page, figure)


def test_performance_page_has_arithmetic_and_memory_of_a_step() -> None:
    """LeNet's, computed by hand: its layers' outputs are 3 convolution, 3 pooling and 4 dense ones."""
    text = read_page(ROOT / "docs" / "performance.md")
    for recipe in RECIPES.values():
        assert f"its {-(-60_000 // recipe.batch_size)} batches" in text
    assert "| arithmetic | 0.88 GFLOP | " in text
    assert "| memory traffic, at least | 56 MB: 44 of activations, 12 of weights and momentum | " in text


def test_figures_of_the_pages_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_figure_changed_by_hand_is_reported(tmp_path: Path) -> None:
    for part in ("scripts", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    text = read_page(ROOT / "README.md").replace(
        "<!-- end of figures -->", "1.42 times as fast\n<!-- end of figures -->"
    )
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    check = [sys.executable, str(tmp_path / "scripts" / "figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "README.md: not up to date; run make figures\n")


def test_image_tag_of_another_version_is_reported(tmp_path: Path) -> None:
    for part in ("scripts", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    page = tmp_path / "docs" / "kubernetes.md"
    page.write_text(read_page(page).replace(f"mnist-tf:{__version__}", "mnist-tf:9.9.9", 1), encoding="utf-8")
    check = [sys.executable, str(tmp_path / "scripts" / "figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "docs/kubernetes.md: not up to date; run make figures\n")


def test_result_files_name_their_measurement_and_are_shown() -> None:
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    for name, result in results.items():
        assert all(result["measured"][fact] for fact in ("commit", "date_utc", "cpu_model", "cpu_threads")), name
    templates = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/figures").glob("*.md.jinja")}
    shown = set(re.findall(r"<!-- figures: ([a-z_]+) -->", "".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert {f"{name}.md.jinja" for name in shown} == set(templates)
    assert {name for name in results if any(f"{name}." in text for text in templates.values())} == set(results)
