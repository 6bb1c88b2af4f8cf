"""The documentation says what is so: exit codes, options, make targets, files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli.app import exit_code_of
from jobs.comparison import fields
from jobs.comparison.analysis import fleet, statistics, verdict
from jobs.comparison.analysis import regression as gate
from jobs.comparison.input import parse
from jobs.exit_codes import ExitCode
from jobs.mnist_torch.cli import PROGRAM
from jobs.recipes import RECIPES, model_flop_per_image
from jobs.report.schema import GpuPhase, HostPhase
from jobs.telemetry.validity import SUSPECT

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _commands(page: Path) -> list[str]:
    """The lines of the console blocks that a reader would type."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [command.strip() for line in lines if line.startswith("$ ") for command in re.split(r"&&|\|", line[2:])]


def test_the_readme_s_exit_codes_are_the_table() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_the_readme_names_every_option_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PROGRAM, ["train", "--help"]) == 0
    options = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    table = README.partition("## Options")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| `(--[^`]+)` \|", table, re.MULTILINE) for name in row.split()}
    assert named == options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "docker" / "images.mk").read_text()
    for command in _commands(page):
        found = re.match(r"make ([a-z-]+)", command)
        if found:
            assert re.search(rf"^{found[1]}( [a-z-]+)*:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_jobs_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is run up to its options: ``--help`` at its end stops it there, an unknown option stops it before."""
    for command in _commands(page):
        found = re.search(r"mnist-(?:tf|torch)(?::\S+)? +(train|evaluate|doctor|dataset)(.*)", command)
        if found:
            words = re.sub(r"[>2].*$", "", found[2]) if ">" in found[2] else found[2]
            assert exit_code_of(PROGRAM, [found[1], *words.split(), "--help"]) == 0, (
                f"{command}: {capsys.readouterr().err}"
            )
            named = set(re.findall(r"--[a-z-]+", words))
            assert exit_code_of(PROGRAM, [found[1], "--help"]) == 0
            assert named <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_recipes_page_has_the_recipes_numbers() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for recipe in RECIPES.values():
        assert f"{recipe.parameter_count:,}" in text
        assert f"{model_flop_per_image(recipe):,}" in text
        for dataset, references in recipe.reference_accuracy.items():
            name = {"mnist": "MNIST"}.get(dataset, dataset)
            assert f"| `{recipe.name}` | {name} | {', '.join(map(str, references))} |" in text


def test_the_telemetry_page_has_every_metric_and_every_cause() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    assert set(GpuPhase.model_fields) <= named
    assert set(HostPhase.model_fields) <= named
    causes = re.findall(r"^\| (`(?:gpu|cpu|resumed)_[^|]+) \|", text.partition("## When to believe")[2], re.MULTILINE)
    assert {name for row in causes for name in re.findall(r"`([a-z_]+)`", row)} >= SUSPECT


def test_the_merge_script_s_options_are_as_shown() -> None:
    script = ROOT / "scripts" / "merge_reports.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--allow", "--baseline", "--output-dir", "-o"):
        assert option in shown
    for page in PAGES:
        for command in _commands(page):
            if "merge_reports.py" in command:
                assert set(re.findall(r"--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", shown)), command


def test_the_comparison_page_has_the_code_s_figures() -> None:
    text = " ".join((ROOT / "docs" / "comparison.md").read_text(encoding="utf-8").split())
    for figure in (
        f"{100 * (statistics.SMALLEST_EFFECT - 1):.0f} %",
        f"{100 * statistics.CONFIDENCE:.0f} % interval",
        f"{statistics.RESAMPLES:,} resamples",
        f"p of at most {statistics.ALPHA:g}",
        f"at most {statistics.FAMILYWISE_ALPHA:g} after Holm",
        f"over {100 * statistics.UNSTABLE_SPREAD:.0f} % of its median",
        f"{100 * verdict.MAX_FAILURE_RATE_GAP:.0f} points",
        f"{100 * gate.GATE_ALPHA:.1f} %",
        f"{100 * gate.ACCURACY_FLOOR:.1f} points",
        f"beyond {fleet.OUTLIER_SCORE:g}",
        f"{parse.REPORT_LIMIT // 1024**2} MiB",
    ):
        assert figure in text, figure
    for field in fields.FIELDS:
        assert f"`{field.path}`" in text


def test_figures_in_the_pages_are_those_of_the_result_files() -> None:
    check = [sys.executable, ROOT / "scripts" / "figures.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_figure_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    for part in ("scripts", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    text = README.replace("<!-- end of figures -->", "1.42 times as fast\n<!-- end of figures -->")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    check = [sys.executable, tmp_path / "scripts" / "figures.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "README.md: not up to date; run make figures\n")


def test_every_result_file_says_how_it_was_measured_and_is_shown() -> None:
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    for name, result in results.items():
        assert all(result["measured"][fact] for fact in ("commit", "date_utc", "cpu_model", "cpu_threads")), name
    templates = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/figures").glob("*.md.jinja")}
    shown = set(re.findall(r"<!-- figures: ([a-z_]+) -->", "".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert {f"{name}.md.jinja" for name in shown} == set(templates)
    assert {name for name in results if any(f"{name}." in text for text in templates.values())} == set(results)


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"^[A-Z0-9]+_[A-Z0-9_]+$", page.read_text(encoding="utf-8"), re.MULTILINE), page
