"""Many reports are read by several processes: the same runs, in the same order, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from jobs.comparison import process_pool as workers
from jobs.comparison.input import parallel_read as crowd
from jobs.comparison.input.load import load
from jobs.report import write
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.comparison.input.load import Loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(30):
        write(make_report(seed=seed, run_id=f"run-{seed:02}"), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.log").write_text("nothing here")
    return tmp_path


def _load(folder: Path) -> Loaded:
    return load([str(folder)], BytesIO())


@pytest.fixture
def alone(folder: Path) -> Loaded:
    return _load(folder)


def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PARALLEL_THRESHOLD", 2)
    monkeypatch.setattr(crowd, "CHUNK", 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_several_processes_find_what_one_finds(folder: Path, alone: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    _two_cores(monkeypatch)
    called: list[int] = []
    crowd_of_two = load([str(folder)], BytesIO(), meanwhile=lambda: called.append(os.getpid()))
    assert crowd_of_two == alone
    assert called == [os.getpid()]
    # What runs have in common is kept once, whichever process read them.
    assert len({id(run.environment) for run in crowd_of_two.runs}) == 1


def test_a_worker_that_dies_loses_nothing(folder: Path, alone: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    _two_cores(monkeypatch)
    parent, real = os.getpid(), crowd.read_report

    def die_in_a_worker(path: Path, reducer: object) -> object:
        if os.getpid() != parent and path.name.startswith("run-07"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, reducer)  # type: ignore[arg-type]

    monkeypatch.setattr(crowd, "read_report", die_in_a_worker)
    assert _load(folder) == alone


@pytest.mark.parametrize(
    "refusal",
    [
        FileNotFoundError("no /dev/shm"),
        ImportError("no working sem_open"),
        NotImplementedError("too few semaphores"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_a_system_without_means_for_workers_reads_alone(
    refusal: Exception, folder: Path, alone: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    _two_cores(monkeypatch)

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(workers, "ProcessPoolExecutor", refuse)
    assert _load(folder) == alone


def test_a_system_without_room_for_processes_reads_alone(
    folder: Path, alone: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    _two_cores(monkeypatch)
    real, forked = os.fork, []

    def one_and_no_more() -> int:
        if forked:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        child = real()
        if child:
            forked.append(child)
        return child

    monkeypatch.setattr("os.fork", one_and_no_more)
    assert _load(folder) == alone
    # The one that was started is not left behind.
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], os.WNOHANG)


def test_a_system_that_does_not_say_how_many_cores_there_are_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers.start_workers(2) is None
