"""Prepares this process to be one rank, before the framework is loaded: its GPU, its threads, its parent."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jobs.errors import NoUsableGpu
from jobs.io.cpus import usable_cpus

if TYPE_CHECKING:
    from jobs.choices import DeviceChoice, Reduction
    from jobs.ranks.place import RankPlace

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
LAUNCHER_VARIABLE: Final = "MNIST_JOBS_RANK_LAUNCHER"
"""A pipe's end. The launcher has the other one, so that the pipe is closed when the launcher ends."""


def choose_gpu(place: RankPlace, device: DeviceChoice) -> None:
    """Leave this rank one GPU of its machine: that of its local number.

    Raises:
        NoUsableGpu: ``CUDA_VISIBLE_DEVICES`` lists fewer GPUs than the machine has ranks.
    """
    if device == "cpu" or place.local_size == 1:
        return
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place.local_rank)
        return
    listed = [entry.strip() for entry in text.split(",") if entry.strip()]
    is_own_launcher = LAUNCHER_VARIABLE in os.environ
    if len(listed) == 1 and place.engine == "torchrun" and not is_own_launcher and place.local_rank > 0:
        # The engine, or its operator, has already given each rank its own.
        return
    if len(listed) > place.local_rank:
        os.environ["CUDA_VISIBLE_DEVICES"] = listed[place.local_rank]
    elif listed:
        raise NoUsableGpu(
            f"{place.local_size} ranks on this machine, but CUDA_VISIBLE_DEVICES lists {len(listed)} of the GPUs "
            f"({text[:100]}); a rank needs a GPU: start fewer ranks, or use --device cpu"
        )


def choose_threads(reduction: Reduction | None, local_size: int) -> None:
    """Set the threads of an operation on the CPU.

    ``exact`` has one in each rank: how an operation is split over threads can change its bits. ``fast`` divides the
    CPUs among the machine's ranks.
    """
    if reduction == "exact":
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    elif local_size > 1:
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(max(1, usable_cpus() // local_size)))


def end_with_launcher() -> None:
    """Interrupt this process, as SIGTERM does, when the launcher that started it ends."""
    number = os.environ.pop(LAUNCHER_VARIABLE, "")
    if not number.isdecimal():
        return

    def wait() -> None:
        with suppress(OSError):
            os.read(int(number), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
