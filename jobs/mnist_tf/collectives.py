"""The sums over ranks, by tf.distribute. Only the gradients go through its strategy: the model is outside of it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import tensorflow as tf

# Only the context can set how long the ranks wait for one another: the strategy's own limit is an hour.
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager.context import context

from jobs.errors import PeerLost, RanksNotConnected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.choices import Reduction
    from jobs.ranks.group import RankGroup
    from jobs.ranks.place import RankPlace

HEARTBEAT_TIMEOUT_S: Final = 10
"""A rank that is silent for so long is lost, and every collective fails. One that ended is noticed at once."""
JOB: Final = "worker"

_strategies: list[tf.distribute.MultiWorkerMirroredStrategy] = []
"""The strategy of this process, once it is connected. TensorFlow can be connected once in a process."""


def connect(place: RankPlace, *, timeout_s: float) -> None:
    """Start this rank's server and wait for the others. No operation may have run in this process.

    Raises:
        RanksNotConnected: a rank did not come within ``timeout_s``, or the port is in use.
    """
    addresses = [f"{host}:{port}" for host, port in place.addresses]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({JOB: addresses}), task_type=JOB, task_id=place.rank, rpc_layer="grpc"
    )
    context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{JOB}/replica:0/task:0",
        cluster_register_timeout_in_ms=round(1000 * timeout_s),
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_TIMEOUT_S,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name=JOB, num_tasks=place.size)],
    )
    try:
        _strategies.append(tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver))
    except (tf.errors.OpError, RuntimeError) as error:
        raise RanksNotConnected(_why_not_connected(place, error, timeout_s)) from error


def _why_not_connected(place: RankPlace, error: Exception, timeout_s: float) -> str:
    return f"{type(error)} {error} {timeout_s}"


def add_in_tree(rows: tf.Tensor) -> tf.Tensor:
    """The sum of ``rows`` (1, 2, 4 or 8, n) in a fixed tree, ``((0 + 1) + (2 + 3)) + ...``, of shape (1, n).

    A row may itself be the sum of a subtree: the bits do not depend on where the tree was cut. Each level is one
    addition of halves, which TensorFlow's graph optimizer leaves as it is; it joins separate additions into one.
    """
    while rows.shape[0] > 1:
        rows = rows[::2] + rows[1::2]
    return rows


class Collectives:
    """Adds rows of numbers over all ranks: of shape (own shards, n), or (1, n) under ``fast``."""

    def __init__(self, group: RankGroup, reduction: Reduction, *, eager: bool) -> None:
        """``eager``: :meth:`add` is called eagerly, and not within a function."""
        self._exact = reduction == "exact"
        self._group = group
        self._over_ranks: Any = tf.function(self._run) if eager else self._run

    def add_own(self, rows: tf.Tensor) -> tf.Tensor:
        """The sum of this rank's ``rows``, of shape (1, n)."""
        return add_in_tree(rows)

    def add_over_ranks(self, row: tf.Tensor) -> tf.Tensor:
        """The sum of every rank's ``row`` (1, n), of the same shape. Not within control flow of the caller's function."""
        return row if self._group.size == 1 else self._over_ranks(row)

    def _run(self, row: tf.Tensor) -> tf.Tensor:
        (strategy,) = _strategies
        total: tf.Tensor = strategy.run(self._gather_and_add if self._exact else self._reduce, args=(row,))
        return total

    def _gather_and_add(self, row: tf.Tensor) -> tf.Tensor:
        # Without identity a value from outside has no device of this strategy.
        gathered = tf.distribute.get_replica_context().all_gather(tf.identity(row), 0)
        return add_in_tree(tf.ensure_shape(gathered, [self._group.size, row.shape[1]]))

    def _reduce(self, row: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(row))


@contextmanager
def lost_peers() -> Iterator[None]:
    """Raise PeerLost where a collective fails since another rank is gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError) as error:
        message = " ".join(str(error).split())
        found = re.search(r"/task:(\d+)", message)
        who = f"rank {found[1]}" if found else "another rank"
        raise PeerLost(f"peer lost: {who} (TensorFlow's collective failed: {_short(message)})") from error


def _short(message: str) -> str:
    return message.rpartition("aborted by: ")[2].partition(" Additional GRPC")[0][:200]
