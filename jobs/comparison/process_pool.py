"""Other processes of this machine, for work that divides: as many as it has cores for."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 8


def _cores() -> int:
    """How many this process may use; one where the system does not say, as macOS, where a fork is not safe either."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def start_workers(
    tasks: int, *, given: Callable[..., None] | None = None, to: tuple[Any, ...] = ()
) -> ProcessPoolExecutor | None:
    """Copies of this process as it stands, for ``tasks`` pieces of work; each first calls ``given`` with ``to``.

    ``None`` where this process is as well off alone: one core, one task, or a system that has no room for more.
    No framework is loaded and no thread of ours runs here, so a fork is safe; it saves importing everything again,
    and nothing of ``to`` is copied.
    """
    count = min(_cores(), tasks, MOST)
    if count < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return None
    pool = None
    try:
        pool = ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("fork"), initializer=given, initargs=to
        )
        # The first piece of work is what starts the processes.
        pool.submit(int)
    except (OSError, ImportError, NotImplementedError, RuntimeError):
        # Nothing is lost: one process does the same work. OSError: no /dev/shm, or no more processes. ImportError and
        # NotImplementedError: a Python built without semaphores, or too few of them. RuntimeError: no more threads.
        if pool is not None:
            _abandon(pool)
        return None
    return pool


def _abandon(pool: ProcessPoolExecutor) -> None:
    """End what was started of it, which nobody would wait for any more."""
    for process in list((pool._processes or {}).values()):  # noqa: SLF001 - no public way leads to half a pool
        process.kill()
        process.join()
    pool.shutdown(wait=False, cancel_futures=True)
