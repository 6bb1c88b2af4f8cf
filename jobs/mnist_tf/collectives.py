"""The sums over ranks, by tf.distribute. Only the gradients go through its strategy: the model is outside of it."""

from __future__ import annotations

import re
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import tensorflow as tf

# Only the context can set how long the ranks wait for one another: the strategy's own limit is an hour.
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob  # type: ignore[attr-defined]
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


@dataclass
class _Membership:
    """A process among the ranks. TensorFlow can be connected once in a process."""

    place: RankPlace
    timeout_s: float
    strategy: Any = None
    """Once it is connected."""


_memberships: list[_Membership] = []


def join(place: RankPlace, *, timeout_s: float) -> None:
    """Note where the other ranks are, for :func:`connect`."""
    _memberships[:] = [_Membership(place, timeout_s)]


def ranks_here() -> int:
    """The ranks that share this machine's CPUs: those with the host of this one."""
    if not _memberships:
        return 1
    place = _memberships[0].place
    hosts = [host for host, _ in place.addresses]
    return hosts.count(hosts[place.rank])


def connect() -> None:
    """Start this rank's server and wait for the others, once in this process. No operation may have run before.

    Raises:
        RanksNotConnected: a rank did not come in time, or the port is in use.
    """
    (member,) = _memberships
    if member.strategy is not None:
        return
    place = member.place
    cluster = tf.train.ClusterSpec({JOB: [_address(host, port) for host, port in place.addresses]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type=JOB, task_id=place.rank, rpc_layer="grpc"
    )
    context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{JOB}/replica:0/task:0",
        cluster_register_timeout_in_ms=round(1000 * member.timeout_s),
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_TIMEOUT_S,
        coordinated_jobs=[CoordinatedJob(name=JOB, num_tasks=place.size)],
    )
    # Otherwise rank 0 would wait for the others without a limit.
    context().coordination_service.cluster_register_with_barrier = True
    try:
        member.strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        raise RanksNotConnected(
            f"rank {place.rank} of {place.size} could not join the others: {_why_not(member, error)}"
        ) from error
    _restore_sigterm()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _restore_sigterm() -> None:
    """Give SIGTERM back to Python: TensorFlow's own handler, which it sets when it connects, ignores it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _why_not(member: _Membership, error: Exception) -> str:
    place = member.place
    if isinstance(error, tf.errors.DeadlineExceededError):
        ranks = ", ".join(_address(host, port) for host, port in place.addresses)
        return f"not all of {ranks} answered within {member.timeout_s:g} s; see the logs of the other ranks"
    if "Could not start gRPC server" in str(error):
        return f"port {place.addresses[place.rank][1]} is in use on this machine; free it, or choose another port"
    return " ".join(str(error).split())[:300]


def add_in_tree(rows: tf.Tensor) -> tf.Tensor:
    """The sum of ``rows`` (1, 2, 4 or 8, n) in a fixed tree, ``((0 + 1) + (2 + 3)) + ...``, of shape (1, n).

    A row may itself be the sum of a subtree: the bits do not depend on where the tree was cut. Each level is one
    addition of halves, which TensorFlow's graph optimizer leaves as it is; it joins separate additions into one.
    """
    for _ in range(int(rows.shape[0]).bit_length() - 1):  # type: ignore[arg-type]
        rows = rows[::2] + rows[1::2]
    return rows


class Collectives:
    """Adds a row of numbers of each rank."""

    def __init__(self, group: RankGroup, reduction: Reduction, *, eager: bool) -> None:
        """``eager``: the sum is called eagerly, and not within a function, where alone TensorFlow gathers."""
        self._exact = reduction == "exact"
        self._group = group
        self._over_ranks: Any = tf.function(self._run) if eager else self._run

    def add_over_ranks(self, row: tf.Tensor) -> tf.Tensor:
        """The sum of every rank's ``row``, of the same shape (1, n).

        A loop may contain it, but no control flow within ``strategy.run``.
        """
        return row if self._group.size == 1 else self._over_ranks(row)

    def _run(self, row: tf.Tensor) -> tf.Tensor:
        total: tf.Tensor = _memberships[0].strategy.run(
            self._gather_and_add if self._exact else self._reduce, args=(row,)
        )
        return total

    def _gather_and_add(self, row: tf.Tensor) -> tf.Tensor:
        # Without identity a value from outside has no device of this strategy.
        gathered = tf.distribute.get_replica_context().all_gather(tf.identity(row), 0)
        return add_in_tree(tf.ensure_shape(gathered, [self._group.size, row.shape[1]]))

    def _reduce(self, row: tf.Tensor) -> tf.Tensor:
        total: tf.Tensor = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(row))
        return total


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
