from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from jobs.ranks import launcher as launcher_module
from jobs.ranks.launcher import exit_code, launch, rank_command

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.choices import FrameworkName

WRITES_ITS_PLACE = """
import json, os, sys
from pathlib import Path
from jobs.ranks.place import find_place
place = find_place(os.environ, framework=sys.argv[2], ranks=1, service=None)
values = [place.rank, place.size, place.token, place.control, os.environ["OWN"]]
Path(sys.argv[1], str(place.rank)).write_text(json.dumps(values))
sys.exit(10 if place.rank == 1 else 0)
"""
WAITS = """
import os, sys, threading
from pathlib import Path
from jobs.ranks.process import end_with_launcher
end_with_launcher()
folder = Path(sys.argv[1])
(folder / str(os.getpid())).touch()

threading.Event().wait()
"""
LAUNCHES = """
import sys
from jobs.ranks.launcher import launch
sys.exit(launch([sys.executable, "-c", sys.argv[2], sys.argv[1]], framework="torch", ranks=2))
"""


SIGNALLED_AT_START = """
import os, signal, subprocess, sys
from jobs.ranks import launcher
start = subprocess.Popen

def start_after_a_signal(*arguments, **options):
    # Between the starts of rank 0 and rank 1.
    if options["env"]["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return start(*arguments, **options)

subprocess.Popen = start_after_a_signal
waits = [sys.executable, "-c", "import threading; threading.Event().wait()"]
sys.exit(launcher.launch(waits, framework="torch", ranks=2))
"""


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_launch_starts_each_rank_and_returns_the_failures_code(
    framework: FrameworkName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN", "kept")
    code = launch([sys.executable, "-c", WRITES_ITS_PLACE, str(tmp_path), framework], framework=framework, ranks=4)
    assert code == 10
    places = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert [place[:2] for place in places] == [[rank, 4] for rank in range(4)]
    tokens, controls = {place[2] for place in places}, {tuple(place[3]) for place in places}
    assert (len(tokens), len(controls)) == (1, 1)
    assert "" not in tokens
    assert {place[4] for place in places} == {"kept"}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([13, 9, 13], 9), ([13, -9, 13], 137), ([13, 13], 13), ([0, 13], 13), ([143, 143], 143)],
)
def test_exit_code_is_that_of_the_rank_that_failed_by_itself(codes: list[int], expected: int) -> None:
    assert exit_code(codes) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_launch_passes_a_signal_to_every_rank(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCHES, str(tmp_path), WAITS]) as launcher:
        _wait_for_ranks(tmp_path, launcher)
        launcher.send_signal(number)
        assert launcher.wait(20) == 128 + number
    assert not [path.name for path in tmp_path.iterdir() if _is_running(int(path.name))]


def test_launch_with_a_signal_while_ranks_start_ends_those_that_start_later() -> None:
    with subprocess.Popen([sys.executable, "-c", SIGNALLED_AT_START]) as launcher:
        try:
            assert launcher.wait(20) == ExitCode.INTERRUPTED
        finally:
            launcher.kill()


def test_launch_that_is_killed_leaves_no_rank(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCHES, str(tmp_path), WAITS], stdout=subprocess.PIPE) as launcher:
        _wait_for_ranks(tmp_path, launcher)
        launcher.kill()
        assert launcher.stdout is not None
        # The ranks have copies of the pipe: it ends when the last of them has.
        assert launcher.stdout.read() == b""


def test_rank_command_runs_the_same_program_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("raise SystemExit(99)")
    done = subprocess.run(rank_command("mnist-torch", ["--version"]), cwd=tmp_path, capture_output=True, check=False)
    assert done.stdout.startswith(b"mnist-torch ")
    assert done.returncode == 0


def _wait_for_ranks(folder: Path, launcher: subprocess.Popen[bytes]) -> None:
    while len(list(folder.iterdir())) < 2:
        assert launcher.poll() is None
        os.sched_yield()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_launch_ends_ranks_that_wait_for_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "OTHERS_S", 0.5)
    fails = f"import os, sys\nif os.environ['RANK'] == '2': sys.exit(2)\n{WAITS}"
    assert launch([sys.executable, "-c", fails, str(tmp_path)], framework="torch", ranks=3) == 2


def test_launch_returns_the_code_of_the_rank_that_failed_first(tmp_path: Path) -> None:
    # The launcher has noticed the end of rank 1 when its process is gone.
    fails = f"""
import os, sys
from pathlib import Path
folder, first = Path({str(tmp_path)!r}), os.environ["RANK"] == "0"
if not first:
    (folder / "new").write_text(str(os.getpid()))
    (folder / "new").rename(folder / "pid")
    sys.exit(3)
while not (folder / "pid").exists() or Path("/proc", (folder / "pid").read_text()).exists():
    pass
sys.exit(12)
"""
    assert launch([sys.executable, "-c", fails], framework="torch", ranks=2) == 3


def test_launch_kills_a_rank_that_no_signal_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "OTHERS_S", 0.5)
    fails = "import os, signal, sys\nif os.environ['RANK'] == '1': sys.exit(9)\n"
    stops = f"{fails}os.kill(os.getpid(), signal.SIGSTOP)\n{WAITS}"
    assert launch([sys.executable, "-c", stops, str(tmp_path)], framework="torch", ranks=2) == ExitCode.OUT_OF_MEMORY
