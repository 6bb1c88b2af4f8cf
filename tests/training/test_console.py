"""What a data set's folder is called reaches no terminal as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobs.cli.app import exit_code_of
from jobs.datasets import load
from jobs.exit_codes import ExitCode
from jobs.io.rich_console import PipeSafeConsole
from jobs.mnist_torch.cli import PROGRAM
from jobs.training.console import Console
from tests.support.digits import small_digits, write_idx_folder

if TYPE_CHECKING:
    from pathlib import Path

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_idx_folder(tmp_path / f"a{ESCAPES}", small_digits())


def test_console_line_with_escapes_shows_them_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line(f"1 epoch of idx:{ESCAPES} [bold]")
    assert capsys.readouterr().err == f"1 epoch of idx:{SHOWN} [bold]\n"


@pytest.mark.parametrize("size", ["²", "9" * 5000, "0", "-1", "", "wide\udce9"])
def test_console_size_in_the_environment_that_is_no_number_is_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    expected = PipeSafeConsole().size
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    assert PipeSafeConsole().size == expected
    Console().line("1 epoch")
    assert capsys.readouterr().err == "1 epoch\n"


def test_console_line_with_markup_and_emoji_codes_shows_them_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line(r"data :warning: of [red]x[/] in C:\[bold]\ and [/nothing]")
    assert capsys.readouterr().err == "data :warning: of [red]x[/] in C:\\[bold]\\ and [/nothing]\n"


@pytest.mark.parametrize("command", ["dataset", "doctor"])
def test_command_on_a_folder_with_escapes_shows_them_as_text(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--report-dir", str(tmp_path / f"reports{ESCAPES}")] if command == "doctor" else []
    exit_code_of(PROGRAM, [command, "--dataset", str(folder), *options])
    shown = capsys.readouterr().out
    assert f"idx:a{SHOWN}" in shown
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("arguments", [[f"--{ESCAPES}"], [f"x{ESCAPES}"], ["train", f"--{ESCAPES}"]])
def test_usage_error_with_escapes_shows_them_as_text(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PROGRAM, arguments) == ExitCode.BAD_INPUT
    shown = capsys.readouterr().err
    assert SHOWN in shown
    assert shown.rstrip("\n").isprintable()


def test_folder_name_with_escapes_or_without_utf_8_is_text_that_a_report_can_hold(tmp_path: Path) -> None:
    folder = write_idx_folder(tmp_path / f"caf\udce9{ESCAPES}", small_digits())
    assert load(str(folder)).name == rf"idx:caf\udce9{SHOWN}"


def test_error_about_a_folder_with_escapes_shows_them_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(b"short")
    assert exit_code_of(PROGRAM, ["dataset", "--dataset", str(folder)]) != 0
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.rstrip("\n").isprintable()
