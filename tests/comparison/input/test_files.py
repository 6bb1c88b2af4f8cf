"""Many reports are read by several processes: the same runs, in the same order, whatever becomes of the processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jobs.comparison.input import files
from jobs.comparison.input.load import load
from jobs.report import write
from tests.support.programs import ROOT
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.comparison.input.load import Loaded
    from jobs.comparison.input.run_summary import RunSummary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(30):
        write(make_report(seed=seed, run_id=f"run-{seed:02}"), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.log").write_text("nothing here")
    return tmp_path


def load_folder(folder: Path) -> Loaded:
    return load([str(folder)], BytesIO())


@pytest.fixture
def expected(folder: Path) -> Loaded:
    """What one process reads: the folder has fewer files than the threshold."""
    return load_folder(folder)


@pytest.fixture
def two_cores(expected: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(files, "PARALLEL_THRESHOLD", 2)
    monkeypatch.setattr(files, "CHUNK", 4)
    monkeypatch.setattr(files, "usable_cpus", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_read_reports_two_processes_gives_the_same_as_one(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, parent = files.read_report, os.getpid()

    def read_in_a_worker(path: str) -> RunSummary:
        assert os.getpid() != parent
        return real(path)

    monkeypatch.setattr(files, "read_report", read_in_a_worker)
    loaded = load_folder(folder)
    assert loaded == expected
    # What runs have in common is in memory once, whichever process read them.
    assert len({id(run.environment) for run in loaded.runs}) == 1
    assert psutil.Process().children() == []


@pytest.mark.usefixtures("two_cores")
def test_read_reports_killed_worker_loses_no_report(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, parent = files.read_report, os.getpid()

    def read_or_die(path: str) -> RunSummary:
        if os.getpid() != parent and "run-07" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path)

    monkeypatch.setattr(files, "read_report", read_or_die)
    assert load_folder(folder) == expected


READ_THE_FIRST = """\
import itertools, signal, sys
from jobs.comparison.input import files
files.usable_cpus = lambda: 3
# So many that no pipe holds them all.
paths = list(itertools.islice(itertools.cycle(sys.argv[1:]), files.PARALLEL_THRESHOLD))
runs = files.read_reports(paths)
next(runs)
print("read", flush=True)
signal.pause()
"""


def test_read_reports_killed_parent_leaves_no_worker(folder: Path) -> None:
    paths = [str(path) for path in folder.glob("*-*.json")]
    command = [sys.executable, "-c", READ_THE_FIRST, *paths]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = parent.stdout.readline()
        workers = psutil.Process(parent.pid).children()
        parent.kill()
        _, left = psutil.wait_procs(workers, timeout=30)
        for worker in left:
            worker.kill()
    assert said == "read\n"
    assert len(workers) == 3
    assert left == []


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("missing", ["os.fork", "os.pipe"])
def test_read_reports_without_processes_or_pipes_reads_alone(
    missing: str, folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(missing, refuse)
    assert load_folder(folder) == expected


@pytest.mark.usefixtures("two_cores")
def test_read_reports_room_for_one_process_leaves_none_behind(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fork
    forked: list[int] = []

    def fork_once() -> int:
        if forked:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        child = real()
        if child:
            forked.append(child)
        return child

    monkeypatch.setattr("os.fork", fork_once)
    assert load_folder(folder) == expected
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], os.WNOHANG)


@pytest.mark.usefixtures("two_cores")
def test_read_reports_where_fork_is_unsafe_reads_alone(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("os.fork", lambda: pytest.fail("a process was started"))
    assert load_folder(folder) == expected


def test_read_reports_with_quota_of_one_core_reads_alone(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PARALLEL_THRESHOLD", 2)
    monkeypatch.setattr("jobs.io.cpus.cpu_quota_cores", lambda _: 1.0)
    monkeypatch.setattr("os.fork", lambda: pytest.fail("a process was started"))
    assert load_folder(folder) == expected


class EntryOfUnknownType:
    """What ``os.scandir`` gives on a volume that does not list types, in a folder without search permission."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path = entry.name, entry.path

    def is_dir(self, *, follow_symlinks: bool) -> bool:  # noqa: ARG002
        raise PermissionError(13, "Permission denied", self.path)


def test_load_folder_with_entry_of_unreadable_type_skips_it_with_the_reason(
    folder: Path, expected: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "locked").mkdir()
    real = os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[list[Any]]:
        with real(path) as entries:
            yield [EntryOfUnknownType(entry) if entry.name == "locked" else entry for entry in entries]

    monkeypatch.setattr("os.scandir", scandir)
    loaded = load_folder(folder)
    assert loaded.runs == expected.runs
    assert [(skipped.source, skipped.reason) for skipped in loaded.skipped if "locked" in skipped.source] == [
        (str(folder / "locked"), "cannot be read (Permission denied)")
    ]


def test_read_chunk_of_bad_files_keeps_none_of_their_content(tmp_path: Path) -> None:
    size = 1_000_000
    texts = {"json": "[1," + " " * size, "report": f'{{"run_id": "{"x" * size}"}}'}
    paths = [tmp_path / f"{name}-{number}.json" for name in texts for number in range(5)]
    for path in paths:
        path.write_text(texts[path.name.partition("-")[0]])
    # As the program does: objects in a cycle stay.
    gc.disable()
    tracemalloc.start()
    try:
        runs = files._read_chunk([str(path) for path in paths])
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(runs) == len(paths)
    assert all("is no report of a job" in str(run) for run in runs)
    assert kept_bytes < size
