"""Runs a function in several ranks on this machine, each a process that has joined the others."""

from __future__ import annotations

import hashlib
import multiprocessing
import socket
import traceback
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from jobs.adapter import RunSpec
from jobs.mnist_torch.framework import create_trainer, join_ranks
from jobs.ranks.group import RankGroup
from jobs.ranks.place import RankPlace
from jobs.training.seeding import epoch_order, initial_weights
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from jobs.choices import Reduction
    from jobs.mnist_torch.trainer import TorchTrainer
    from jobs.recipes import Recipe

# A server forks each rank once it has imported torch, and what torch.optim imports when it is used: seconds each.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "tests.mnist_torch.ranks"])


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def place_of(rank: int, size: int, port: int) -> RankPlace:
    address = ("127.0.0.1", port)
    return RankPlace(
        rank=rank,
        size=size,
        local_rank=rank,
        local_size=size,
        addresses=(address,),
        control=address,
        engine="indexed_job",
    )


def exchange(part: Any) -> list[Any]:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def run_ranks(size: int, work: Callable[..., Any], *arguments: Any, joins: bool = True) -> list[Any]:
    """What ``work(group, *arguments)`` returns in each rank; its error as text; ``None`` from a rank that was killed.

    Without ``joins`` it gets the rank's place in the place of its group.
    """
    port = free_port()
    ranks = []
    for rank in range(size):
        parent, child = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(
            target=_rank, args=(child, place_of(rank, size, port), joins, work, arguments), daemon=True
        )
        process.start()
        child.close()
        ranks.append((process, parent))
    results = []
    for process, parent in ranks:
        try:
            results.append(parent.recv())
        except EOFError:
            results.append(None)
        process.join()
    return results


def _rank(pipe: Connection, place: RankPlace, joins: bool, work: Callable[..., Any], arguments: Any) -> None:  # noqa: FBT001
    torch.set_num_threads(1)
    try:
        if not joins:
            pipe.send(work(place, *arguments))
            return
        join_ranks(place, timeout_s=60)
        pipe.send(work(RankGroup(rank=place.rank, size=place.size, exchange=exchange), *arguments))
    except BaseException as error:  # noqa: BLE001 - the test reads it
        pipe.send("".join(traceback.format_exception(error)))


def make_trainer(
    group: RankGroup | None, recipe: Recipe, reduction: Reduction | None, *, images: int, **changes: Any
) -> TorchTrainer:
    """A trainer with the drawn weights, for ``images`` images in batches of 24: three images a shard."""
    spec = RunSpec.for_recipe(recipe, device="cpu", execution="eager").replace(
        reduction=reduction, **({"batch_size": 24} | changes)
    )
    trainer = create_trainer(spec, small_digits(train=images, test=10), group)
    trainer.load_weights(initial_weights(spec.recipe, spec.seed))
    return trainer


def train(trainer: TorchTrainer, *, images: int, epochs: int = 2) -> list[float]:
    """The epochs' losses."""
    return [
        trainer.train_epoch(epoch_order(1, epoch, images), lambda _: None, epoch=epoch)
        for epoch in range(1, epochs + 1)
    ]


def digest(trainer: TorchTrainer) -> str:
    """SHA-256 of all that the next step depends on."""
    content = hashlib.sha256()
    for name, array in trainer.state().items():
        content.update(name.encode() + array.tobytes())
    return content.hexdigest()
