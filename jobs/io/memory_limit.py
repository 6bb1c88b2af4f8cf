"""Limits of a process's address space, as by ``ulimit -v``. Imports only what every start of Python can afford."""

from __future__ import annotations

import mmap
import os
import resource
from typing import Final

from jobs.errors import OutOfMemory

LIBRARIES_BYTES: Final = 320 * 2**20
"""What NumPy and SciPy take of the address space with one thread (measured: 280 MiB, NumPy 2.4, SciPy 1.17)."""


def require_room_for_libraries() -> None:
    """Check that NumPy and SciPy can be loaded within the process's limit, if it has one.

    Their OpenBLAS raises no error without room: it ends the process with code 1, sends it SIGINT, or waits forever.

    Raises:
        OutOfMemory: the limit leaves less than :data:`LIBRARIES_BYTES`.
    """
    if not _is_limited():
        return
    # Each thread would take another 40 MiB. The frameworks compute with libraries and threads of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        # Reserved and given back at once; no page of it is used.
        mmap.mmap(-1, LIBRARIES_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        raise OutOfMemory(_text(f"{LIBRARIES_BYTES // 2**20} MiB are needed to load NumPy and SciPy")) from error


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The message for an ``error`` that says that memory has run out; ``None`` for another error."""
    if isinstance(error, OutOfMemory):
        return error
    if not _means_no_memory(error):
        return None
    return OutOfMemory(_text(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def _text(reason: str) -> str:
    return f"out of memory ({reason}); raise the limit that `ulimit -v` shows, or give the job more memory"


def _means_no_memory(error: BaseException | None) -> bool:
    limited = _is_limited()
    while error is not None:
        text = str(error).lower()
        # Without a limit, "failed to map" means that the volume forbids execution.
        if isinstance(error, MemoryError) or "cannot allocate memory" in text or (limited and "failed to map" in text):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_limited() -> bool:
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
