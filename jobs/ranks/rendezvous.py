"""The start of a run's ranks: each reaches rank 0, and all go on when all are there."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import RanksNotConnected
from jobs.ranks.channel import MAX_TEXT, Channel
from jobs.ranks.connection import Connection, reason_of

if TYPE_CHECKING:
    from jobs.ranks.place import RankPlace

HELLO_S: Final = 5.0
"""Time in which a new connection must say which rank it is."""
OPEN_S: Final = 5.0
"""Time for one try to connect. The next one asks for the address again, which may be another pod's by then."""
SAME_RUN: Final = "start all ranks of one run with the same options"
RETRY_S: Final = 0.2


def connect(place: RankPlace, *, node: str, timeout_s: float) -> Channel:
    """Connect all ranks; returns in each when all are there.

    Raises:
        RanksNotConnected: a rank did not come within ``timeout_s``, or a port cannot be used.
    """
    hello = {"rank": place.rank, "size": place.size, "token": place.token, "node": node}
    deadline_s = time.monotonic() + timeout_s
    if place.rank == 0:
        return _gather(place, hello, deadline_s, timeout_s)
    return _reach_first(place, hello, deadline_s, timeout_s)


def _gather(place: RankPlace, hello: dict[str, Any], deadline_s: float, timeout_s: float) -> Channel:
    _, port = place.control
    try:
        server = _listen(place.control[0], port, place.size)
    except OSError as error:
        raise RanksNotConnected(
            f"port {port} of rank 0 cannot be used for the control channel ({error.strerror}); "
            "end the program that has it, or choose another with MNIST_JOBS_RANK_CONTROL_PORT in all ranks"
        ) from error
    connections: dict[int, Connection] = {}
    nodes = {0: hello["node"]}
    with server:
        while missing := _missing(place, connections):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                _refuse_all(connections, f"{_named(missing)} did not come within {timeout_s:.0f} s; see their logs")
                raise RanksNotConnected(
                    f"{_named(missing)} of {place.size} did not come within {timeout_s:.0f} s; "
                    "start all of them, and see their logs; --rank-timeout waits longer"
                )
            server.settimeout(left_s)
            try:
                stream, _ = server.accept()
            except TimeoutError:
                continue
            accepted = _accept(stream, place, connections)
            if accepted is not None:
                rank, connection, node = accepted
                connections[rank], nodes[rank] = connection, node
    names = [nodes[rank] for rank in range(place.size)]
    for connection in connections.values():
        with suppress(OSError):
            connection.send({"nodes": names})
    return Channel(place, connections, names)


def _listen(host: str, port: int, ranks: int) -> socket.socket:
    # With ranks on one machine nothing else needs to reach the port.
    if host in {"127.0.0.1", "localhost"}:
        return socket.create_server(("127.0.0.1", port), backlog=ranks)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=ranks, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=ranks)


def _missing(place: RankPlace, connections: dict[int, Connection]) -> list[int]:
    """The ranks that are not there. One that has ended is forgotten: it may start again, as a pod does."""
    for rank in [rank for rank, connection in connections.items() if connection.has_ended()]:
        connections.pop(rank).close()
    return [rank for rank in range(1, place.size) if rank not in connections]


def _accept(
    stream: socket.socket, place: RankPlace, connections: dict[int, Connection]
) -> tuple[int, Connection, str] | None:
    """The rank that connected; ``None`` if it is none of this run, which is then told so."""
    connection = Connection(stream)
    connection.set_timeout(HELLO_S)
    with suppress(OSError):
        hello = connection.receive(HELLO_S)
        rank = hello.get("rank")
        if hello.get("token") != place.token:
            refusal = f"rank 0 is of another run; {SAME_RUN}"
        elif hello.get("size") != place.size:
            refusal = f"rank 0 has {place.size} ranks, not {hello.get('size')}; {SAME_RUN}"
        elif type(rank) is not int or not 0 < rank < place.size:
            refusal = f"there are ranks 0 to {place.size - 1}, not {rank}; {SAME_RUN}"
        elif rank not in _missing(place, connections):
            refusal = f"another process is rank {rank}; start each rank once"
        else:
            return rank, connection, str(hello.get("node"))[:MAX_TEXT]
        connection.send({"refused": refusal})
    connection.close()
    return None


def _reach_first(place: RankPlace, hello: dict[str, Any], deadline_s: float, timeout_s: float) -> Channel:
    host, port = place.control
    reason = "no answer"
    # The name of a pod that is not ready yet does not resolve, and rank 0 may start later than this one.
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            connection = _open(host, port, min(left_s, OPEN_S))
        except ValueError as error:
            raise RanksNotConnected(
                f"rank 0's host {host[:100]!r} is no name of a host ({error}); correct the ranks' variables"
            ) from error
        except OSError as error:
            reason = reason_of(error)
            threading.Event().wait(min(RETRY_S, left_s))
            continue
        try:
            connection.set_timeout(max(deadline_s - time.monotonic(), RETRY_S))
            connection.send(hello)
            answer = connection.receive()
        except OSError as error:
            connection.close()
            # The system also reports a lost machine as a timeout, long before this one.
            if isinstance(error, TimeoutError) and time.monotonic() >= deadline_s:
                raise RanksNotConnected(
                    f"rank {place.rank} reached rank 0, but not all ranks came within {timeout_s:.0f} s; "
                    "start all of them, and see their logs; --rank-timeout waits longer"
                ) from None
            reason = f"connected, and then {reason_of(error)}"
            threading.Event().wait(min(RETRY_S, left_s))
            continue
        if isinstance(answer.get("nodes"), list):
            return Channel(place, {0: connection}, [str(node) for node in answer["nodes"]])
        connection.close()
        raise RanksNotConnected(
            f"rank 0 at {host}:{port} refuses rank {place.rank}: {answer.get('refused', 'no reason given')}"
        )
    raise RanksNotConnected(
        f"rank {place.rank} did not reach rank 0 at {host}:{port} within {timeout_s:.0f} s ({reason}); "
        "start rank 0, and check the name, the port and the network policy; --rank-timeout waits longer"
    )


def _open(host: str, port: int, within_s: float) -> Connection:
    stream = socket.create_connection((host, port), timeout=within_s)
    if stream.getsockname() == stream.getpeername():
        # Before rank 0 listens on this machine, the system may choose its port for this end, which then reaches itself.
        # Closed without lingering, the port is free for rank 0 at once.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return Connection(stream)


def _refuse_all(connections: dict[int, Connection], reason: str) -> None:
    for connection in connections.values():
        with suppress(OSError):
            connection.send({"refused": reason})
        connection.close()


def _named(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
