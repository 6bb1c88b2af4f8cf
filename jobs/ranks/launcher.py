"""Starts the ranks of one machine, each as a process with the variables of its framework's own engine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from jobs.exit_codes import ExitCode
from jobs.ranks.place import CONTROL_PORT_VARIABLE, TOKEN_VARIABLE
from jobs.ranks.process import LAUNCHER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.choices import FrameworkName

OTHERS_S: Final = 30.0
"""Time in which ranks end after another has failed, and after a signal to them."""
POLL_S: Final = 0.1
HOST: Final = "127.0.0.1"
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def launch(
    command: Sequence[str], *, framework: FrameworkName, ranks: int, of_first: Mapping[str, str] | None = None
) -> int:
    """Run ``command`` as each of the ranks, wait for all, and return the exit code of the run.

    It is that of the rank that failed first, not of those that ended because of it. Signals are passed on.
    ``of_first`` are variables that only rank 0 gets.
    """
    ports = free_ports(ranks + 1)
    shared = {TOKEN_VARIABLE: secrets.token_hex(16), CONTROL_PORT_VARIABLE: str(ports[ranks])}
    # Closed when this process ends, by whatever: see end_with_launcher.
    alive, alive_here = os.pipe()
    relay = _Relay(ranks)
    previous = {number: signal.signal(number, relay.pass_on) for number in SIGNALS}
    try:
        for rank in range(ranks):
            own: dict[str, str] = {
                **shared,
                LAUNCHER_VARIABLE: str(alive),
                **rank_variables(framework, rank=rank, ports=ports[:ranks]),
            }
            if rank == 0:
                own |= of_first or {}
            # A process group each, so that a terminal's Ctrl-C reaches a rank once: from here.
            process = subprocess.Popen(command, env={**os.environ, **own}, pass_fds=[alive], process_group=0)
            relay.add(process)
        codes = relay.wait()
    finally:
        for process in relay.processes:
            if process.poll() is None:
                process.kill()
        os.close(alive)
        os.close(alive_here)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return exit_code(codes)


class _Relay:
    """Passes each signal on to each rank once, also to one that starts after it."""

    def __init__(self, ranks: int) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self._signals: list[deque[int]] = [deque() for _ in range(ranks)]

    def add(self, process: subprocess.Popen[bytes]) -> None:
        self.processes.append(process)
        self._send()

    def pass_on(self, number: int, _: object) -> None:
        for numbers in self._signals:
            numbers.append(number)
        self._send()

    def wait(self) -> list[int]:
        """The exit codes of all, in the order in which the ranks ended.

        Once connected, ranks end by themselves when one has failed. Before that they would wait for it until their time
        limit. Those that still run some time later are ended.
        """
        ended: list[subprocess.Popen[bytes]] = []
        running, end_s, last = list(self.processes), inf, [signal.SIGTERM, signal.SIGKILL]
        while running:
            with suppress(subprocess.TimeoutExpired):
                running[0].wait(POLL_S)
            ended += [process for process in running if process.poll() is not None]
            running = [process for process in running if process not in ended]
            if end_s == inf and any(process.returncode for process in ended):
                end_s = time.monotonic() + OTHERS_S
            if running and last and time.monotonic() >= end_s:
                number = last.pop(0)
                _say(f"a rank has failed, and others still run {OTHERS_S:.0f} s later: {number.name} ends them")
                for process in running:
                    process.send_signal(number)
                end_s += OTHERS_S
        return [process.returncode for process in ended]

    def _send(self) -> None:
        for process, numbers in zip(self.processes, self._signals, strict=False):
            with suppress(IndexError):
                while True:
                    process.send_signal(numbers.popleft())


def _say(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the launcher is a program of its own


def exit_code(codes: Sequence[int]) -> int:
    """The run's exit code: that of the first rank that failed by itself, else that of the first that failed."""
    failed = [128 - code if code < 0 else code for code in codes if code != 0]
    by_themselves = [code for code in failed if code != ExitCode.PEER_LOST]
    return (by_themselves or failed or [int(ExitCode.DONE)])[0]


def rank_variables(framework: FrameworkName, *, rank: int, ports: Sequence[int]) -> Mapping[str, str]:
    """What the framework's engine would set for ``rank`` of as many ranks as there are ``ports``."""
    if framework == "torch":
        return {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(ports)),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(len(ports)),
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(ports[0]),
        }
    cluster = {"worker": [f"{HOST}:{port}" for port in ports]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})}


def rank_command(program: str, arguments: Sequence[str]) -> list[str]:
    """The command of one rank: the same program with the same arguments. ``-P`` keeps the current folder out of it."""
    script = program.replace("-", "_")
    return [sys.executable, "-P", "-c", f"from jobs.cli.start import {script}; {script}()", *arguments]


def free_ports(count: int) -> list[int]:
    """Ports that no program listens on; all are held until all are found, so that they differ."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports
