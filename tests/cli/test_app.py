from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from jobs.cli import doctor
from jobs.cli.app import exit_code_of
from jobs.exit_codes import ExitCode
from jobs.mnist_tf.cli import PROGRAM as TF
from jobs.mnist_torch.cli import PROGRAM as TORCH
from jobs.recipes import RECIPES

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.app import Program
    from jobs.cli.finding import Finding

PROGRAMS = pytest.mark.parametrize("program", [TF, TORCH], ids=["tf", "torch"])

COMMANDS = ("train", "evaluate", "doctor", "dataset")


def _help(program: Program, command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """All that a user can see of a command's options."""
    assert exit_code_of(program, [command, "--help"]) == 0
    return capsys.readouterr().out.replace(program.name, "PROGRAM")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_both_programs_is_the_same(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _help(TF, command, capsys)
    assert shown.startswith(f"Usage: PROGRAM {command}")
    assert shown == _help(TORCH, command, capsys)


def test_train_recipe_choices_are_those_of_recipes() -> None:
    third_recipe = (
        "from dataclasses import replace\n"
        "from jobs import recipes\n"
        "recipes.RECIPES['third'] = replace(recipes.LENET, name='third')\n"
        "from jobs.cli.app import exit_code_of\n"
        "from jobs.mnist_tf.cli import PROGRAM\n"
        "exit_code_of(PROGRAM, ['train', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", third_recipe], capture_output=True, text=True, check=True)
    assert "|".join([*RECIPES, "third"]) in done.stdout


@PROGRAMS
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--recipe", "lennet"], "'lennet' is not one of 'lenet', 'basic-cnn'"),
        (["train", "--batch-size", "0"], "0 is not between 1 and 60000"),
        (["train", "--epochs", "-1"], "-1 is not between 0 and"),
        (["train", "--epochs", "0"], "--epochs 0 trains nothing"),
        (["train", "--checkpoint-steps", "5"], "needs a folder for the checkpoints: give --checkpoint-dir DIR"),
        (["train", "--learning-rate", "0"], "0.0 is not a finite number above 0"),
        (["train", "--learning-rate", "nan"], "nan is not a finite number above 0"),
        (["train", "--learning-rate", "fast"], "--learning-rate"),
        (["train", "--seed", "-1"], "-1 is not between 0 and"),
        (["train", "--trials", "0"], "0 is not between 1 and"),
        (["train", "--protocol", "published", "--parity-steps", "3"], "only --protocol matched"),
        (["train", "--parity-steps", "3"], "--parity-steps 3: fp32 is judged from at least 8 steps; give more, or"),
        (["train", "--precision", "bf16", "--parity-steps", "7"], "--parity-steps 7: bf16 is judged from at least 8"),
        (["train", "--parity-steps", "0"], "0 is not between 1 and"),
        (["train", "--no-such-option"], "--no-such-option"),
        (["tarin"], "'tarin'"),
        (["doctor", "--time-limit", "0"], "0 is not between 1 and 86400"),
        (["evaluate", "absent.safetensors"], "no weights file 'absent.safetensors'"),
        (["dataset", "--dataset", "absent"], "'absent': no such data set or folder"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    program: Program, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(program, arguments) == ExitCode.BAD_INPUT
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@PROGRAMS
def test_train_report_folder_not_writable_is_refused_first(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = ["train", "--report-dir", str(tmp_path / "file" / "reports")]
    assert exit_code_of(program, arguments) == ExitCode.REPORT_NOT_WRITABLE
    assert "choose another with --report-dir" in capsys.readouterr().err


@PROGRAMS
def test_train_without_its_framework_names_extra_and_image(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(program.framework) is not None:
        pytest.skip(f"{program.framework} is installed here")
    arguments = ["train", "--dataset", "synthetic", "--report-dir", str(tmp_path)]
    assert exit_code_of(program, arguments) == ExitCode.FRAMEWORK_MISSING
    error = capsys.readouterr().err
    assert f"mnist-jobs[{program.extra}]" in error
    assert f"the image {program.name}" in error


@PROGRAMS
@pytest.mark.parametrize(("options", "limit_s"), [([], 60), (["--time-limit", "600"], 600)])
def test_doctor_has_a_minute_for_the_gpu_or_the_time_asked_for(
    program: Program, options: list[str], limit_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def examine(*_: object, time_limit_s: float, **__: object) -> list[Finding]:
        given.append(time_limit_s)
        return []

    monkeypatch.setattr(doctor, "examine", examine)
    assert exit_code_of(program, ["doctor", *options]) == 0
    assert given == [limit_s]


@PROGRAMS
def test_doctor_checks_everything_and_returns_the_first_failure(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(program.framework) is not None:
        pytest.skip(f"{program.framework} is installed here")
    code = exit_code_of(program, ["doctor", "--dataset", str(tmp_path), "--report-dir", str(tmp_path / "reports")])
    printed = capsys.readouterr().out.splitlines()
    assert code == ExitCode.FRAMEWORK_MISSING
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in printed] == [
        "NVML",
        "framework",
        "dataset",
        "report folder",
    ]
    assert [line.split()[0] for line in printed][1:] == ["fail", "fail", "ok"]


@PROGRAMS
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--help"], 0), (["train", "--help"], 0), (["--version"], 0), (["train", "--epochs", "-1"], 2)],
)
def test_help_and_usage_errors_import_little(program: Program, arguments: list[str], expected: int) -> None:
    """They must answer at once. The number of imports, unlike the time, does not depend on the machine."""
    probe = (
        "import sys\n"
        "from jobs.cli.app import exit_code_of\n"
        f"from jobs.{program.name.replace('-', '_')}.cli import PROGRAM\n"
        f"code = exit_code_of(PROGRAM, {arguments!r})\n"
        "loaded = {'torch', 'tensorflow', 'keras', 'numpy', 'scipy'} & set(sys.modules)\n"
        "print(loaded or code, len(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    code, modules = done.stderr.splitlines()[-1].rsplit(maxsplit=1)
    assert code == str(expected)
    assert int(modules) < 600


@PROGRAMS
def test_program_error_is_an_internal_error(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours \x1b[31m\x9b")

    monkeypatch.setattr("jobs.datasets.load", broken)
    assert exit_code_of(program, ["dataset"]) == ExitCode.INTERNAL_ERROR
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert r"ZeroDivisionError: a bug of ours \x1b[31m\x9b" in error
    assert error.replace("\n", "").isprintable()
    assert error.splitlines()[-1].startswith("error: unexpected ZeroDivisionError")


def test_program_without_a_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(TORCH, []) == ExitCode.BAD_INPUT
    printed = capsys.readouterr().err
    assert printed.startswith("Usage: mnist-torch [OPTIONS] COMMAND")
    assert "error:" not in printed


def test_usage_error_of_a_command_points_to_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(TORCH, ["train", "--alow"]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.rstrip().endswith("see `mnist-torch train --help`")
