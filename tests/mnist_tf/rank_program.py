"""Trains as 1 to 8 ranks on this machine: ``python -m tests.mnist_tf.rank_program SIZE JOBS``, JOBS a JSON list.

TensorFlow is imported once; the ranks are forks of this process. Each rank prints a line of JSON for each job:
``{"rank", "weights" by epoch, "loss" by epoch, "state", "stops", "steps", "compute_s", "communication_s"}``.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import JobError, PeerLost
from jobs.mnist_tf.cli import PROGRAM
from jobs.ranks.group import RankGroup
from jobs.ranks.place import RankPlace
from tests.support.digits import small_digits

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
    kill, save, load, stop_every = (job.pop(name, None) for name in ("kill", "save", "load", "stop_every"))
    recipe, epochs = RECIPES[job.pop("recipe")], job.pop("epochs", 2)
    spec = RunSpec.for_recipe(recipe, device="cpu", execution="graph").replace(ranks=group.size, epochs=epochs, **job)
    data = small_digits(train=images, test=1)
    trainer = framework.create_trainer(spec, data, group if spec.reduction else None)
    trainer.load_weights(initial_weights(recipe, spec.seed))
    start, done = 1, 0
    if load is not None:
        start, done, state = pickle.loads(Path(load).read_bytes())
        trainer.load_state(state)
    weights, losses, stops, states = [], [], [], {}
    for epoch in range(start, epochs + 1):

        def on_step(step: int, epoch: int = epoch) -> None:
            stops.append(step)
            if save is not None and [epoch, step] == save["at"] and group.is_first:
                Path(save["path"]).write_bytes(pickle.dumps((epoch, step, trainer.state())))
            if kill is not None and [epoch, step] == kill["at"] and group.rank == kill["rank"]:
                os.kill(os.getpid(), signal.SIGKILL)

        order = epoch_order(spec.seed, epoch, images)
        losses.append(trainer.train_epoch(order, on_step, epoch=epoch, done=done, stop_every=stop_every))
        weights.append(digest(trainer.weights()))
        done = 0
    states = digest(trainer.state())
    if job.get("arrays"):
        Path(job["arrays"]).write_bytes(pickle.dumps(trainer.weights()))
    times = trainer.step_times()
    measured = {} if times is None else vars(times)
    return {"rank": group.rank, "weights": weights, "loss": losses, "state": states, "stops": stops, **measured}


def run_rank(rank: int, size: int, ports: list[int], exchange: Any, jobs: list[dict[str, Any]]) -> int:
    framework: Any = PROGRAM.load_framework()
    group = RankGroup(rank=rank, size=size, exchange=exchange)
    try:
        if size > 1:
            place = RankPlace(
                rank=rank,
                size=size,
                local_rank=rank,
                addresses=tuple(("127.0.0.1", port) for port in ports),
                control=("127.0.0.1", 0),
                engine="tf_config",
            )
            framework.join_ranks(place, timeout_s=120)
        framework.select_device("cpu")
        for job in jobs:
            sys.stdout.write(json.dumps(run_job(job, framework, group)) + "\n")
            sys.stdout.flush()
        # As the training room: nobody leaves before all are done.
        group.exchange(None)
    except JobError as error:
        sys.stdout.write(json.dumps({"rank": rank, "error": type(error).__name__, "message": str(error)}) + "\n")
        return int(error.exit_code)
    return 0


def fork_ranks(size: int, start: Callable[[int, Any], int]) -> list[int]:
    """Run ``start(rank, exchange)`` in a process each; the exit codes by rank, negative for a signal."""
    pairs = [socket.socketpair() for _ in range(size - 1)]
    pids = []
    for rank in range(size):
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
                # A normal exit would tear down TensorFlow's modules, which takes longer than these trainings.
                os._exit(code)
        pids.append(pid)
    for one in (one for pair in pairs for one in pair):
        one.close()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main() -> None:
    size, jobs = int(sys.argv[1]), json.loads(sys.argv[2])
    PROGRAM.load_framework()
    ports = free_ports(size)
    codes = fork_ranks(size, lambda rank, exchange: run_rank(rank, size, ports, exchange, jobs))
    sys.stdout.write(json.dumps({"codes": codes}) + "\n")


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
