from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.training.signals import Interrupted, InterruptGuard
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_deferred_signal_is_raised_by_check(number: signal.Signals, code: int) -> None:
    with InterruptGuard() as guard:
        guard.defer_interrupts()
        guard.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=number.name) as caught:
            guard.check()
    assert caught.value.exit_code == code


def test_signal_before_training_is_raised_at_once_and_by_each_check() -> None:
    with InterruptGuard() as guard:
        with pytest.raises(Interrupted, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        # Whoever swallowed it, a library's import for example, does not get the run past the next check.
        with pytest.raises(Interrupted, match="SIGTERM"):
            guard.check()


def test_interrupted_is_no_exception_that_a_library_would_catch() -> None:
    assert not issubclass(Interrupted, Exception)


def test_interrupt_guard_restores_the_handlers_before_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with InterruptGuard():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_signal_in_a_run_ends_the_process_at_once() -> None:
    program = (
        "import os, signal\n"
        "from jobs.training.signals import InterruptGuard\n"
        "with InterruptGuard() as guard:\n"
        "    guard.defer_interrupts()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 143
    assert done.stdout == b""


def _run(program: str) -> tuple[int, str, str]:
    start = "import atexit, os, signal, sys\ndef kill(name): os.kill(os.getpid(), getattr(signal, name))\n"
    done = subprocess.run(
        [sys.executable, "-c", start + program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script", ["mnist_tf", "mnist_torch"])
@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "error: interrupted by SIGINT\n"), ("SIGTERM", 143, "")]
)
def test_signal_during_imports_ends_the_program_at_once(script: str, name: str, code: int, said: str) -> None:
    program = (
        "import builtins; real = builtins.__import__\n"
        f"def slow(name, *rest): name == 'typer' and kill({name!r}); return real(name, *rest)\n"
        "builtins.__import__ = slow\n"
        f"from jobs.cli.start import {script} as main; main()\n"
    )
    assert _run(program) == (code, "", said)


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_second_signal_while_the_program_unwinds_ends_it_at_once(first: str, second: str, code: int) -> None:
    program = (
        "from jobs.training.signals import ExitOnSignal; ExitOnSignal().install()\n"
        f"try: kill({first!r})\n"
        f"finally: kill({second!r}); print('still here')\n"
    )
    assert _run(program) == (code, "", "")


def test_second_signal_after_an_interrupted_run_ends_the_program_at_once() -> None:
    program = (
        "from jobs.training.signals import ExitOnSignal, Interrupted, InterruptGuard; ExitOnSignal().install()\n"
        "try:\n"
        "    with InterruptGuard(): kill('SIGTERM')\n"
        "except Interrupted: kill('SIGINT'); print('still here')\n"
    )
    assert _run(program) == (130, "", "")


LATE = {
    "when other exits are handled": "atexit.register(kill, {name!r})",
    "when modules are cleared": "class Late:\n    def __del__(self, kill=kill): kill({name!r})\nsys.late = Late()",
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["train", "--epochs", "x"], 2)])
def test_signal_at_the_end_of_the_program_changes_no_exit_code(
    name: str, late: str, arguments: list[str], code: int
) -> None:
    program = (
        f"from jobs.mnist_tf.cli import PROGRAM, run_program\n{late.format(name=name)}\n"
        f"run_program(PROGRAM, {arguments!r})\n"
    )
    found, _, error = _run(program)
    assert found == code
    assert "Traceback" not in error
    assert "ignored" not in error


def test_signal_that_a_library_turns_into_its_own_error_is_an_interruption(tmp_path: Path) -> None:
    program = (
        "from dataclasses import replace\nfrom jobs.mnist_torch.cli import PROGRAM, run_program\n"
        "def load():\n"
        "    try: kill('SIGINT')\n"
        "    except BaseException as error: raise ImportError('a library') from error\n"
        f"options = ['train', '--telemetry', 'off', '--report-dir', {str(tmp_path)!r}]\n"
        "run_program(replace(PROGRAM, load=load), options)\n"
    )
    code, _, error = _run(program)
    assert code == 130, error
    assert error.endswith("\ninterrupted by SIGINT before training began: there is nothing to report\n")
    (record,) = tmp_path.glob("*.started")
    assert json.loads(record.read_text())["status"] == "interrupted"
