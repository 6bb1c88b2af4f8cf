"""Trains as 1 to 8 ranks on this machine: ``python -m tests.mnist_tf.rank_program SIZE JOBS [CASE RANK]``.

``JOBS`` is a JSON list. TensorFlow is imported once; the ranks are forks of this process. Each prints a line of JSON
for each job, and the last line has their exit codes. With ``CASE`` only ``RANK`` starts; it is ``missing``, or
``busy`` where something else listens at its port.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.errors import JobError, PeerLost
from jobs.mnist_tf.cli import PROGRAM
from jobs.ranks.group import RankGroup
from jobs.ranks.place import RankPlace
from tests.support.digits import small_digits
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = 330
"""Five full batches of 64 and a short one, which leaves half of the shards without an example."""


class PipeExchange:
    """:class:`jobs.ranks.group.Exchange` over pairs of sockets between rank 0 and each other rank."""

    def __init__(self, streams: list[Any], *, first: bool) -> None:
        self._streams = streams
        self._first = first

    def __call__(self, part: Any, /) -> list[Any]:
        try:
            if not self._first:
                self._send(self._streams[0], part)
                return list(self._receive(self._streams[0]))
            parts = [part, *(self._receive(stream) for stream in self._streams)]
            for stream in self._streams:
                self._send(stream, parts)
        except OSError as error:
            raise PeerLost("peer lost: noticed by the exchange") from error
        return parts

    def _send(self, stream: Any, value: Any) -> None:
        stream.write(json.dumps(value) + "\n")
        stream.flush()

    def _receive(self, stream: Any) -> Any:
        line = stream.readline()
        if not line:
            raise ConnectionResetError
        return json.loads(line)


class AtEveryStep(RankGroup):
    """Stops without an exchange, so that only a collective can notice that a rank is gone."""

    def next_stop(self, step: int, end: int) -> int:
        return min(step + 1, end)


def environment() -> dict[str, str]:
    """For a process that runs this module: without a GPU."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}


def free_ports(count: int) -> list[int]:
    with_port = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in with_port]
    for server in with_port:
        server.close()
    return ports


def digest(arrays: dict[str, Any]) -> str:
    """SHA-256 of all arrays."""
    found = hashlib.sha256()
    for array in arrays.values():
        found.update(array.tobytes())
    return found.hexdigest()


def run_job(job: dict[str, Any], framework: Any, group: RankGroup) -> dict[str, Any]:
    """Train as ``job`` says: fields of a spec, and ``kill``, ``save``, ``load`` or ``stop_every``."""
    from jobs.adapter import RunSpec
    from jobs.recipes import RECIPES
    from jobs.training.seeding import epoch_order, initial_weights

    job = dict(job)
    images = job.pop("images", IMAGES)
    kill, save, load, arrays, stop_every = map(job.pop, ("kill", "save", "load", "arrays", "stop_every"), [None] * 5)
    recipe, epochs = RECIPES[job.pop("recipe")], job.pop("epochs", 2)
    spec = RunSpec.for_recipe(recipe, device="cpu", execution="graph").replace(ranks=group.size, epochs=epochs, **job)
    data = small_digits(train=images, test=1)
    if kill is not None:
        group = AtEveryStep(rank=group.rank, size=group.size)
    trainer = framework.create_trainer(spec, data, group if spec.reduction else None)
    trainer.load_weights(initial_weights(recipe, spec.seed))
    start, done = 1, 0
    if load is not None:
        start, done = load["at"]
        with np.load(load["path"]) as state:
            trainer.load_state(dict(state))
    weights: list[str] = []
    losses: list[float] = []
    stops: list[int] = []
    for epoch in range(start, epochs + 1):

        def on_step(step: int, epoch: int = epoch) -> None:
            stops.append(step)
            if save is not None and [epoch, step] == save["at"] and group.is_first:
                np.savez(save["path"], **trainer.state())
            if kill is not None and [epoch, step] == kill["at"] and group.rank == kill["rank"]:
                os.kill(os.getpid(), signal.SIGKILL)

        order = epoch_order(spec.seed, epoch, images)
        losses.append(trainer.train_epoch(order, on_step, epoch=epoch, done=done, stop_every=stop_every))
        weights.append(digest(trainer.weights()))
        done = 0
    if arrays is not None and group.is_first:
        np.savez(arrays, **trainer.weights())
    times = trainer.step_times()
    measured = {} if times is None else vars(times)
    state = digest(trainer.state())
    return {"rank": group.rank, "weights": weights, "loss": losses, "state": state, "stops": stops, **measured}


def run_rank(rank: int, ports: list[int], exchange: Any, jobs: list[dict[str, Any]], timeout_s: float) -> int:
    framework: Any = PROGRAM.load_framework()
    size = len(ports)
    group = RankGroup(rank=rank, size=size, exchange=exchange)
    try:
        if size > 1:
            place = RankPlace(
                rank=rank,
                size=size,
                local_rank=rank,
                local_size=size,
                addresses=tuple(("127.0.0.1", port) for port in ports),
                control=("127.0.0.1", 0),
                engine="tf_config",
            )
            framework.join_ranks(place, timeout_s=timeout_s)
        framework.select_device("cpu")
        for job in jobs:
            _print(run_job(job, framework, group))
        # As in a whole run, no rank leaves before all are done.
        group.exchange(None)
    except JobError as error:
        _print({"rank": rank, "error": type(error).__name__, "message": str(error)})
        return int(error.exit_code)
    return 0


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def fork_ranks(size: int, present: list[int], start: Callable[[int, Any], int]) -> dict[str, Any]:
    """Run ``start(rank, exchange)`` for the ranks of ``present``, in a process each.

    The result has their exit codes, negative for a signal, and the seconds between the first and the last end.
    """
    pairs = [socket.socketpair() for _ in range(size - 1)]
    pids = {}
    for rank in present:
        pid = os.fork()
        if pid == 0:
            own = [pair[0] for pair in pairs] if rank == 0 else [pairs[rank - 1][1]]
            for one in (one for pair in pairs for one in pair if one not in own):
                one.close()
            code = 1
            try:
                code = start(rank, PipeExchange([one.makefile("rw") for one in own], first=rank == 0))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # A normal exit would tear down TensorFlow's modules, which takes longer than these trainings.
                os._exit(code)
        pids[pid] = rank
    for one in (one for pair in pairs for one in pair):
        one.close()
    codes, ends_s = dict.fromkeys(present, 0), []
    while pids:
        pid, status = os.wait()
        codes[pids.pop(pid)] = os.waitstatus_to_exitcode(status)
        ends_s.append(time.monotonic())
    return {"codes": list(codes.values()), "between_ends_s": ends_s[-1] - ends_s[0]}


def main() -> None:
    size, jobs, case = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    PROGRAM.load_framework()
    ports, present, timeout_s, listener = free_ports(size), list(range(size)), 120.0, None
    if case:
        present, timeout_s = [int(case[1])], 5.0
        if case[0] == "busy":
            listener = socket.create_server(("", ports[present[0]]))
    _print(fork_ranks(size, present, lambda rank, exchange: run_rank(rank, ports, exchange, jobs, timeout_s)))
    if listener is not None:
        listener.close()


if __name__ == "__main__":
    main()
