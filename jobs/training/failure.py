"""What made a run fail, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.errors import JobError, OutOfMemory
from jobs.io.memory import free_bytes, gib
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from jobs.adapter import Framework, RunSpec


def is_out_of_memory(error: Exception, framework: Framework) -> bool:
    """Whether ``error`` says that the host's or the GPU's memory has run out."""
    return isinstance(error, MemoryError) or framework.is_out_of_memory(error)


def explain_out_of_memory(
    error: Exception, spec: RunSpec, used_bytes: float | None, total_bytes: int | None
) -> OutOfMemory:
    """What to do about ``error``; ``used_bytes`` of ``total_bytes`` are the GPU's, ``None`` where not known."""
    if spec.device == "gpu" and used_bytes is not None and total_bytes is not None:
        free = f"{gib(int(total_bytes - used_bytes))} of the GPU's {gib(total_bytes)}"
    else:
        free = f"{gib(free_bytes())} of the host's"
    return OutOfMemory(
        f"out of memory with batch size {spec.batch_size} in {spec.precision} ({free} free at the time: "
        f"{_first_line(error)}); use a smaller --batch-size, end other work on the device, or give the job more"
    )


def failure_reason(error: Exception) -> str:
    """The report's ``status_reason`` of a run that ended with ``error``."""
    return _first_line(error) if isinstance(error, JobError) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return escape_control_chars(next(iter(str(error).splitlines()), ""))
