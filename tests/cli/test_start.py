"""What happens before and during the imports of a program: too little memory, and signals."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from tests.support.programs import ROOT
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from pathlib import Path

MERGE = str(ROOT / "scripts/merge_reports.py")
DUEL = str(ROOT / "scripts/duel.py")
PROGRAMS = {
    "merge": [MERGE, "report.json"],
    "duel": [DUEL, "duel", "--blocks", "1"],
    "mnist-tf": ["-c", "from jobs.cli.start import mnist_tf as main; main()", "dataset", "--dataset", "synthetic"],
    "mnist-torch": ["-c", "from jobs.cli.start import mnist_torch as main; main()", "doctor"],
}
KILL = "import builtins, os, runpy, signal, sys\ndef kill(name): os.kill(os.getpid(), getattr(signal, name))\n"


def _run(arguments: list[str], folder: Path, mebibytes: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if mebibytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


# With 70 MiB OpenBLAS ends the process with code 1, with 120 it sends it SIGINT, with 200 SciPy's waits forever.
@pytest.mark.parametrize("mebibytes", [40, 70, 120, 200])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_start_too_little_memory_is_one_line_and_code_9(program: list[str], mebibytes: int, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    done = _run(program, tmp_path, mebibytes)
    assert done.returncode == ExitCode.OUT_OF_MEMORY, done.stderr
    assert done.stderr.startswith("error: out of memory (320 MiB are needed to load NumPy and SciPy); raise the limit")
    assert len(done.stderr.splitlines()) == 1


def test_merge_memory_that_just_suffices_completes(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    done = _run(PROGRAMS["merge"], tmp_path, 400)
    assert done.returncode == ExitCode.DONE, done.stderr


@pytest.mark.parametrize("script", [MERGE, DUEL, str(ROOT / "scripts/demo.py")], ids=["merge", "duel", "demo"])
@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "error: interrupted by SIGINT\n"), ("SIGTERM", 143, "")]
)
def test_signal_during_a_scripts_imports_ends_it_at_once(
    script: str, name: str, code: int, said: str, tmp_path: Path
) -> None:
    late = "jobs.recipes" if script.endswith("demo.py") else "typer"
    program = (
        f"{KILL}real = builtins.__import__\n"
        f"def slow(name, *rest): name == {late!r} and kill({name!r}); return real(name, *rest)\n"
        f"builtins.__import__ = slow; runpy.run_path({script!r}, run_name='__main__')\n"
    )
    done = _run(["-c", program], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(("name", "code", "times"), [("SIGINT", 130, 1), ("SIGTERM", 143, 2)])
def test_signal_while_a_merge_writes_leaves_no_comparison(name: str, code: int, times: int, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "report.json")
    program = (
        f"{KILL}os.fsync = lambda _: kill({name!r})\n"
        f"sys.argv = [{MERGE!r}, 'report.json']; runpy.run_path({MERGE!r}, run_name='__main__')\n"
    )
    if times == 2:
        # The second comes when the first one's cleanup closes the hidden file.
        program = program.replace(
            "sys.argv", f"close = os.close\nos.close = lambda d: (kill({name!r}), close(d))[1]\nsys.argv"
        )
    done = _run(["-c", program], tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in (tmp_path / "comparison").glob("*")}
    if times == 1:
        assert left == set()
    assert not left & {"comparison.json", "comparison.md", "comparison.html", "runs.csv"}


def test_duel_in_a_deleted_working_folder_relative_program_is_bad_input(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, DUEL, str(tmp_path / "duel"), "--tf", "x"]
    done = subprocess.run(
        command, cwd=gone, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    assert done.stderr.startswith("error: 'x': the working folder was removed; give absolute paths")
