"""The pages agree with the code: exit codes, options, commands, files, links and figures."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import __version__
from jobs.checkpoint import codec
from jobs.cli.app import exit_code_of
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
from jobs.exit_codes import ExitCode
from jobs.mnist_torch.cli import PROGRAM
from jobs.recipes import RECIPES, model_flop_per_image
from jobs.report import measuring
from jobs.report.schema import GpuPhase, HostPhase
from jobs.telemetry import monitor, validity
from jobs.telemetry.sampler import loop
from jobs.telemetry.validity import SUSPECT_CODES
from jobs.training.parity_trace import MAX_ROUNDING_STATES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = [ROOT / "README.md", ROOT / "README.ko.md"]
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")

IN_WORDS = {3: "three", 5: "five", 8: "eight"}
NOT_OURS = {"NVML Shared Library Not Found"}
"""Messages of libraries that the pages quote."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _lines(page: Path) -> list[str]:
    """The command lines of a page's console blocks, without their comments."""
    blocks = re.findall(r"```console\n(.*?)```", _read(page), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r" +# .*", "", line[2:]).strip() for line in lines if line.startswith("$ ")]


def _commands(page: Path) -> list[str]:
    """The single commands of those lines."""
    return [command.strip() for line in _lines(page) for command in re.split(r"&&|\|", line)]


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", _read(page), flags=re.DOTALL)


def _words(name: str) -> str:
    """A page of docs/ on one line."""
    return " ".join(_read(ROOT / "docs" / name).split())


def _links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)]+)\)", _prose(page)) if "://" not in target]


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_first_screen_shows_purpose_commands_and_figures() -> None:
    for page in READMES:
        first = _read(page).splitlines()[:25]
        text = "\n".join(first)
        assert sum(line.startswith("- **") for line in first) == 3, page
        for part in ("make demo", "docker run", "kubectl apply", "| TensorFlow ", "docs/architecture.md", "README."):
            assert part in text, (page, part)


def test_readme_length_is_at_most_150_lines() -> None:
    for page in READMES:
        assert len(_read(page).splitlines()) <= 150, page


def test_korean_readme_has_the_same_commands_links_and_names() -> None:
    english, korean = READMES
    assert _lines(korean) == _lines(english)
    other = {"README.md": "README.ko.md", "#문서": "#documentation"}
    assert {other.get(link, link) for link in _links(korean)} == {*_links(english)}
    names = [
        set(re.findall(r"`([^`]+)`", re.sub(r"<!-- figures.*?end of figures -->", "", _prose(page), flags=re.DOTALL)))
        for page in READMES
    ]
    assert names[0] == names[1]
    for mark in (r"^## ", r"^\| ", r"^- "):
        count = [len(re.findall(mark, _read(page), re.MULTILINE)) for page in READMES]
        assert count[0] == count[1], mark


def test_exit_codes_page_has_the_code_table() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", OPTIONS, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_options_page_has_every_option_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PROGRAM, ["train", "--help"]) == 0
    options = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    table = OPTIONS.partition("## Options")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| `(--[^`]+)` \|", table, re.MULTILINE) for name in row.split()}
    assert named == options


@each_page
def test_make_targets_in_commands_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "docker" / "images.mk").read_text()
    for command in [*_commands(page), *re.findall(r"`(make [^`]+)`", _prose(page))]:
        found = re.match(r"make ([a-z-]+)", command)
        if found:
            # Make itself forms image-NAME and others from the list of images.
            target = re.sub(r"-mnist-(tf|torch|merge)$", "-%", found[1])
            assert re.search(rf"(^|: ){target}( [a-z-]+)*:", makefile, re.MULTILINE), command


@each_page
def test_job_commands_are_accepted_by_the_command_line(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _links(page):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in _anchors(file), link


@each_page
def test_files_named_in_the_text_exist(page: Path) -> None:
    """Paths from the project's folder. Those with a placeholder (``NAME``, ``*``, ``<``) name no single file."""
    if page.name == "CHANGELOG.md":
        return
    words = [word for text in [*re.findall(r"`([^`\n]+)`", _prose(page)), *_commands(page)] for word in text.split()]
    for word in words:
        path = re.match(r"(?:jobs|tests|scripts|docs|docker|k8s|\.github)/[\w./-]*", word)
        if path and not re.search(r"[*<]|NAME", word):
            assert (ROOT / path[0].rstrip(".")).exists(), word


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


def test_merge_commands_use_options_of_the_script() -> None:
    script = ROOT / "scripts" / "merge_reports.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--allow", "--baseline", "--output-dir", "-o"):
        assert option in shown
    for page in PAGES:
        for command in _commands(page):
            if "merge_reports.py" in command:
                assert set(re.findall(r"--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", shown)), command


def test_duel_commands_are_accepted_by_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / "scripts" / "duel.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ +(--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
    table = _read(ROOT / "docs" / "duel.md").partition("| option |")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", " ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE)))) == options
    commands = [command for page in PAGES for command in _commands(page) if "scripts/duel.py" in command]
    assert commands
    for command in commands:
        own, _, train = command.partition(" -- ")
        assert set(re.findall(r"--[a-z-]+", own)) <= options, command
        assert exit_code_of(PROGRAM, ["train", *train.split(), "--help"]) == 0, capsys.readouterr().err


def test_duel_page_has_the_numbers_of_the_code() -> None:
    text = " ".join(_read(ROOT / "docs" / "duel.md").split())
    for figure in (
        f"With fewer than {stopping.MIN_BLOCKS}, a sign-flip test",
        f"from {stopping.MIN_BLOCKS} blocks on, once the {100 * stopping.CONFIDENCE:.0f} % interval",
        f"After more than {run.MAX_LOST_RUNS} lost runs",
        f"at least {stopping.CLEAR_EFFECT:g} times the spread",
    ):
        assert figure in text, figure


def test_comparison_page_has_the_numbers_of_the_code() -> None:
    text = _words("comparison.md")
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
    text = _words("telemetry.md")
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
    budget_gb = dict(re.findall(r"^budget_gb_(\S+) := (\S+)", _read(ROOT / "docker/images.mk"), re.MULTILINE))
    for page, figure in (
        ("docker.md", f"`mnist-tf` exceeds {budget_gb['mnist-tf']} GB or `mnist-torch` {budget_gb['mnist-torch']} GB"),
        ("fairness.md", f"up to {MAX_ROUNDING_STATES + 1} states"),
        ("reliability.md", f"format is not {codec.FORMAT.split()[-1]},"),
        ("report.md", f"more than {100 * validity.THROTTLED_RATIO:.0f} % of training"),
        ("report.md", f"fewer than {measuring.MIN_READINGS} readings, less than {measuring.MIN_DURATION_S:.0f} s, or"),
        ("report.md", f"or less than {100 * measuring.MIN_COVERAGE_RATIO:.0f} % coverage"),
    ):
        assert figure in _words(page), (page, figure)


def test_performance_page_has_arithmetic_and_memory_of_a_step() -> None:
    """LeNet's, computed by hand: its layers' outputs are 3 convolution, 3 pooling and 4 dense ones."""
    text = _read(ROOT / "docs" / "performance.md")
    for recipe in RECIPES.values():
        assert f"its {-(-60_000 // recipe.batch_size)} batches" in text
    assert "| arithmetic | 0.88 GFLOP | " in text
    assert "| memory traffic, at least | 56 MB: 44 of activations, 12 of weights and momentum | " in text


def _program_texts() -> str:
    """All texts in the code of jobs/, with ``…`` for each placeholder."""
    texts = []
    for path in (ROOT / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_quoted_messages_are_those_of_the_code() -> None:
    """A quotation's ``…`` stands for any text; the parts between are in the code."""
    messages = re.findall(r"^\| `([^`]+)`.* \|", _read(ROOT / "docs/troubleshooting.md"), re.MULTILINE)
    symptoms = _read(ROOT / "docs/kubernetes.md").partition("| what our message says |")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[1] for row in symptoms.splitlines()[2:]]
    quoted = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    messages += [name for name in quoted if " " in name and not name.startswith("--")]
    assert len(messages) >= 11
    texts = _program_texts()
    for message in set(messages) - NOT_OURS:
        for part in message.split("…"):
            assert part.strip() in texts, message


def test_figures_of_the_pages_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_figure_changed_by_hand_is_reported(tmp_path: Path) -> None:
    for part in ("scripts", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    text = _read(ROOT / "README.md").replace("<!-- end of figures -->", "1.42 times as fast\n<!-- end of figures -->")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    check = [sys.executable, str(tmp_path / "scripts" / "figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "README.md: not up to date; run make figures\n")


def test_image_tag_of_another_version_is_reported(tmp_path: Path) -> None:
    for part in ("scripts", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    page = tmp_path / "docs" / "kubernetes.md"
    page.write_text(_read(page).replace(f"mnist-tf:{__version__}", "mnist-tf:9.9.9", 1), encoding="utf-8")
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


def test_pages_have_no_placeholder_left() -> None:
    for page in PAGES:
        assert not re.search(r"^[A-Z0-9]+_[A-Z0-9_]+$", page.read_text(encoding="utf-8"), re.MULTILINE), page
