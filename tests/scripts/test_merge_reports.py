from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.exit_codes import ExitCode
from jobs.report import to_line
from tests.comparison.input.test_started import make_started, write_started
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from jobs.choices import FrameworkName

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/merge_reports.py"


def merge(*args: str | Path, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    # The package may not be installed here; the folder it lies in stands for that.
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **environment}
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, input=stdin, env=variables, capture_output=True, encoding="utf-8", check=False, timeout=120
    )


def assert_refused(result: subprocess.CompletedProcess[str], code: ExitCode, *parts: str) -> None:
    """One clear line, the right exit code, no traceback and no output."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error"]
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """Two recipes in two frameworks, five runs each."""
    speeds: dict[FrameworkName, float] = {"tensorflow": 10_000.0, "torch": 12_000.0}
    for recipe in ("lenet", "basic-cnn"):
        for framework, speed in speeds.items():
            for seed in range(1, 6):
                report: Any = make_report(
                    recipe=recipe,
                    framework=framework,
                    seed=seed,
                    images_per_s=speed + 10 * seed,
                )
                write_report(report, tmp_path / "reports" / f"{report.run_id}.json")
    return tmp_path / "reports"


def test_merge_matrix_writes_a_verdict_for_each_recipe(matrix: Path, tmp_path: Path) -> None:
    result = merge(matrix, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "torch is faster" in result.stdout
    assert (
        "20 runs merged into comparison/comparison.json, comparison/comparison.md, comparison/comparison.html "
        "and comparison/runs.csv" in result.stdout
    )
    comparison = json.loads((tmp_path / "comparison/comparison.json").read_text(encoding="utf-8"))
    assert [(section["recipe"], section["verdict"]["kind"]) for section in comparison["sections"]] == [
        ("basic-cnn", "faster"),
        ("lenet", "faster"),
    ]
    text = (tmp_path / "comparison/comparison.md").read_text(encoding="utf-8")
    assert text.startswith("# TensorFlow and PyTorch compared\n\n- **basic-cnn, matched**: torch is faster")


def test_merge_any_order_of_paths_gives_the_same_bytes(matrix: Path, tmp_path: Path) -> None:
    files = sorted(matrix.iterdir())
    merge(*files, "-o", "a", cwd=tmp_path)
    merge(*reversed(files), "-o", "b", cwd=tmp_path)
    for name in ("comparison.json", "comparison.md", "comparison.html", "runs.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_merge_pod_logs_from_standard_input(tmp_path: Path) -> None:
    lines = [
        f"[pod/mnist-tf-x/train] {to_line(make_report(framework='tensorflow'))}",
        "[pod/mnist-torch-y/train] epoch 1/2",
        f"[pod/mnist-torch-y/train] {to_line(make_report(framework='torch'))}",
        f"[pod/mnist-torch-z/train] {to_line(make_report(framework='torch', seed=2))[:200]}",
    ]
    result = merge("-", "--output-dir", "out", cwd=tmp_path, stdin="\n".join(lines))
    assert result.returncode == 0, result.stderr
    assert result.stderr == "warning: skipped standard input: report line cut short or damaged (1 line: 4)\n"
    assert "single observation" in result.stdout.replace("\n", " ")


def test_merge_skipped_file_and_copy_are_reported(matrix: Path, tmp_path: Path) -> None:
    (matrix / "notes.json").write_text("{}")
    result = merge(matrix, matrix / "torch-lenet-matched-1.json", cwd=tmp_path)
    assert result.returncode == 0
    warning, note = result.stderr.splitlines()
    assert warning.startswith("warning: skipped ")
    assert "notes.json" in warning
    assert note == "note: 1 report found again, by run id and attempt; each run counts once"


def test_merge_byte_copy_under_another_name_counts_once_with_a_line(matrix: Path, tmp_path: Path) -> None:
    original = matrix / "torch-lenet-matched-1.json"
    (matrix / "another-name.json").write_bytes(original.read_bytes())
    result = merge(matrix, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == "note: 1 report found again, by run id and attempt; each run counts once\n"
    assert "20 runs merged" in result.stdout


def test_merge_run_that_died_counts_as_failed_and_is_named(matrix: Path, tmp_path: Path) -> None:
    write_started(make_started(seed=6), matrix)
    result = merge(matrix, "--expect", "torch=8", cwd=tmp_path, COLUMNS="400")
    assert result.returncode == 0, result.stderr
    assert result.stderr == (
        f"warning: died ({matrix}/died-a1.started): it has no report and counts as failed: no report followed: killed, "
        "lost with its node, or still running\n"
    )
    assert "inconclusive: 3 of torch's 8 runs did not complete, against 0 of tensorflow's 5" in result.stdout
    assert "1 torch run (failed), 2 torch runs (missing: seed 7, 8)" in result.stdout
    assert "5 completed, 1 failed, 2 missing" in result.stdout
    # basic-cnn has no record of a run that died.
    assert "3 torch runs (missing: seed 6, 7, 8)" in result.stdout
    (died,) = [line for line in (tmp_path / "comparison/runs.csv").read_text("utf-8").splitlines() if ",died," in line]
    assert ",failed,no report followed" in died.replace('"', "")
    assert "died-a1.started" in (tmp_path / "comparison/comparison.html").read_text("utf-8") + died


@pytest.mark.parametrize("value", ["0", "ten", "jax=3"])
def test_merge_expect_what_is_no_number_is_refused_first(value: str, tmp_path: Path) -> None:
    assert_refused(merge("nowhere", "--expect", value, cwd=tmp_path), ExitCode.BAD_INPUT, f"--expect '{value}'")


def test_merge_without_paths_is_refused(tmp_path: Path) -> None:
    assert_refused(merge(cwd=tmp_path), ExitCode.BAD_INPUT, "nothing to merge")


def test_merge_missing_path_is_refused(tmp_path: Path) -> None:
    assert_refused(merge("nowhere", cwd=tmp_path), ExitCode.BAD_INPUT, "'nowhere'", "No such file")


def test_merge_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"hello": 1}')
    assert_refused(merge("x.json", cwd=tmp_path), ExitCode.BAD_INPUT, "'x.json' is no report")


def test_merge_folder_without_reports_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(merge("empty", cwd=tmp_path), ExitCode.BAD_INPUT, "'empty' holds no report")


def test_merge_different_data_is_refused(tmp_path: Path) -> None:
    write_report(make_report(framework="tensorflow"), tmp_path / "a.json")
    other = {"config.dataset.sha256": "7b" * 32, "config.dataset.name": "synthetic"}
    write_report(make_report(framework="torch", changes=other), tmp_path / "b.json")
    result = merge("a.json", "b.json", cwd=tmp_path)
    assert_refused(
        result,
        ExitCode.NOT_COMPARABLE,
        f"mnist {'5a' * 32} (tensorflow: a.json)",
        f"synthetic {'7b' * 32} (torch: b.json)",
    )
    assert not (tmp_path / "comparison").exists()


def test_merge_different_configurations_are_refused_unless_allowed(tmp_path: Path) -> None:
    write_report(make_report(framework="tensorflow"), tmp_path / "a.json")
    write_report(make_report(framework="torch", changes={"config.batch_size": 128}), tmp_path / "b.json")
    assert_refused(
        merge("a.json", "b.json", cwd=tmp_path),
        ExitCode.NOT_COMPARABLE,
        "config.batch_size: 128 (torch: b.json) ≠ 64 (tensorflow: a.json)",
        "--allow config.batch_size",
    )
    result = merge("a.json", "b.json", "--allow", "config.batch_size", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "config.batch_size" in result.stdout


def test_merge_allow_unknown_field_is_refused(matrix: Path, tmp_path: Path) -> None:
    assert_refused(merge(matrix, "--allow", "speed", cwd=tmp_path), ExitCode.BAD_INPUT, "--allow 'speed'")


def write_side(
    folder: Path, framework: FrameworkName, speed: float, *, first_seed: int = 1, changes: dict[str, Any] | None = None
) -> None:
    for seed in range(first_seed, first_seed + 6):
        report = make_report(framework=framework, seed=seed, gpu=True, images_per_s=speed + 5 * seed, changes=changes)
        write_report(report, folder / f"{framework}-{seed}.json")


@pytest.mark.parametrize(
    ("speed", "code", "said"),
    [
        (10_000.0, ExitCode.DONE, "against the baseline: unchanged"),
        (9_000.0, ExitCode.REGRESSION, "only the driver changed: 550.54 → 570.12"),
        (11_000.0, ExitCode.DONE, "against the baseline: improvement"),
    ],
)
def test_merge_baseline_exit_code_tells_a_regression(tmp_path: Path, speed: float, code: ExitCode, said: str) -> None:
    old, new = ({"environment.driver_version": version} for version in ("550.54", "570.12"))
    write_side(tmp_path / "then", "torch", 10_000.0, changes=old)
    write_side(tmp_path / "now", "torch", speed, first_seed=11, changes=new)
    result = merge("now", "--baseline", "then", cwd=tmp_path, COLUMNS="400")
    assert result.returncode == code, result.stderr
    assert said in result.stdout
    assert json.loads((tmp_path / "comparison/comparison.json").read_text(encoding="utf-8"))["gate"] is not None


def test_merge_baseline_of_another_configuration_is_not_comparable(tmp_path: Path) -> None:
    write_side(tmp_path / "then", "torch", 10_000.0)
    write_side(tmp_path / "now", "torch", 10_000.0, first_seed=11, changes={"config.batch_size": 128})
    result = merge("now", "--baseline", "then", cwd=tmp_path, COLUMNS="400")
    assert result.returncode == ExitCode.NOT_COMPARABLE
    assert "incomparable: these differ: config.batch_size (64 → 128)" in result.stdout
    assert merge("now", "--baseline", "then", "--allow", "config.batch_size", cwd=tmp_path).returncode == 0


def test_merge_unwritable_output_folder_is_refused(matrix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(merge(matrix, "-o", "file/out", cwd=tmp_path), ExitCode.REPORT_NOT_WRITABLE, "'file/out'")


def test_merge_without_the_extra_names_the_environment(matrix: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken/scipy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ModuleNotFoundError(name='scipy')")
    result = merge(matrix, cwd=tmp_path, PYTHONPATH=f"{broken.parent}{os.pathsep}{ROOT}")
    assert_refused(result, ExitCode.FRAMEWORK_MISSING, "needs scipy", "mnist-jobs[compare]")


def test_merge_without_a_home_gives_the_same_files_and_no_message(matrix: Path, tmp_path: Path) -> None:
    assert merge(matrix, "-o", "plain", cwd=tmp_path).returncode == 0
    result = merge(
        matrix,
        "-o",
        "odd",
        cwd=tmp_path,
        SOURCE_DATE_EPOCH="yesterday",
        HOME="/proc/nowhere",
        XDG_CONFIG_HOME="/proc/nowhere",
        XDG_CACHE_HOME="/proc/nowhere",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for name in ("comparison.json", "comparison.html"):
        assert (tmp_path / "odd" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_merge_folder_named_like_an_output_file_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "comparison/runs.csv").mkdir(parents=True)
    result = merge("nowhere", cwd=tmp_path)
    assert_refused(result, ExitCode.REPORT_NOT_WRITABLE, "runs.csv' cannot be written: it is a folder")


def test_merge_all_files_have_one_id(matrix: Path, tmp_path: Path) -> None:
    assert merge(matrix, cwd=tmp_path).returncode == 0
    texts = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "comparison").iterdir())]
    assert len(texts) == 4
    ids = {frozenset(re.findall(r"(?<![0-9a-f-])(?:[0-9a-f]{4}-){3}[0-9a-f]{4}(?![0-9a-f-])", text)) for text in texts}
    assert len(ids) == 1
    assert len(next(iter(ids))) == 1


def test_merge_files_with_similar_names_are_reported(matrix: Path, tmp_path: Path) -> None:
    (matrix / "more.json.gz").write_bytes(b"")
    result = merge(matrix, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith(f"warning: skipped {matrix}/more.json.gz: not read for its name: of a folder only ")


def test_merge_ascii_terminal_gets_question_marks(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "a.json")
    result = merge("a.json", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


def test_merge_help_names_the_options(tmp_path: Path) -> None:
    result = merge("--help", cwd=tmp_path)
    assert result.returncode == 0
    for option in ("PATH", "--output-dir", "--allow", "--baseline", "--expect"):
        assert option in result.stdout
