"""Starts the ranks of one run as an engine does: one process each, with the engine's variables."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from jobs.ranks.launcher import free_ports, rank_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.choices import FrameworkName


def start_ranks(
    commands: Sequence[Sequence[str]], framework: FrameworkName, **variables: str
) -> list[subprocess.Popen[str]]:
    """One process for each of ``commands``, by rank; standard error is read by :func:`end_ranks`."""
    ports = free_ports(len(commands) + 1)
    common = {"MNIST_JOBS_RANK_CONTROL_PORT": str(ports[-1]), "OMP_WAIT_POLICY": "passive", **variables}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **common, **rank_variables(framework, rank=rank, ports=ports[:-1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def end_ranks(processes: Sequence[subprocess.Popen[str]], timeout_s: float = 300) -> list[tuple[int, str]]:
    """Exit code and standard error of each rank, by rank."""
    try:
        # Each is read to its end in turn: what a rank prints fits into its pipe.
        errors = [process.communicate(timeout=timeout_s)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]
