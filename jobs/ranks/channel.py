"""The control channel: a TCP connection from every rank to rank 0, for small JSON values only.

It starts the ranks together, lets them agree, and notices at once when one is gone: the kernel closes the connections
of a process that ends, and its keepalive finds a machine that is gone.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import PeerLost, RanksNotConnected
from jobs.exit_codes import ExitCode
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.ranks.place import RankPlace

MAX_LINE: Final = 1 << 20
"""Bytes of one message. A longer one is not of this program."""
HELLO_S: Final = 5.0
"""Time in which a new connection must say which rank it is."""
RETRY_S: Final = 0.2
KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""A machine that does not answer is lost after 20 s."""
MAX_TEXT: Final = 300


class Connection:
    """One connection, line by line."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._received = b""
        self._lock = threading.Lock()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def set_timeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            OSError: the connection is closed, or what came is no message of this program.
        """
        while b"\n" not in self._received:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the connection was closed")
            self._received += chunk
            if len(self._received) > MAX_LINE:
                raise ConnectionError("it sent something else than this program does")
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConnectionError("it sent something else than this program does") from error
        if not isinstance(message, dict):
            raise ConnectionError("it sent something else than this program does")
        return message

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Channel:
    """The channel in one rank. Rank 0 has a connection to each other rank, the others one to rank 0."""

    def __init__(self, place: RankPlace, connections: dict[int, Connection], nodes: list[str]) -> None:
        self.nodes = nodes
        self._place = place
        self._connections = connections
        self._changed = threading.Condition()
        self._parts: dict[int, list[Any]] = {rank: [] for rank in connections}
        self._lost: PeerLost | None = None
        self._closing = False
        self._on_lost: Callable[[PeerLost], None] = lambda _: None
        for rank, connection in connections.items():
            connection.set_timeout(None)
            threading.Thread(target=self._read, args=(rank, connection), daemon=True).start()

    @property
    def lost(self) -> PeerLost | None:
        """The first rank that was lost, if one was."""
        return self._lost

    def call_on_lost(self, function: Callable[[PeerLost], None]) -> None:
        """Call ``function`` in another thread when a rank is lost, or now if one was."""
        with self._changed:
            self._on_lost = function
            lost = self._lost
        if lost is not None:
            function(lost)

    def wait_for_loss(self, seconds: float) -> PeerLost | None:
        """The rank that was lost, if one is within this time."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None, timeout=seconds)
        return self._lost

    def exchange(self, part: Any) -> list[Any]:
        """Every rank's ``part``, a JSON value, by rank. Waits for all.

        Raises:
            PeerLost: a rank is gone.
        """
        try:
            if self._place.rank == 0:
                parts = [part, *(self._next_part(rank) for rank in sorted(self._connections))]
                for connection in self._connections.values():
                    connection.send({"parts": parts})
                return parts
            self._connections[0].send({"part": part})
        except OSError:
            # The reading thread finds out which rank it was.
            lost = self.wait_for_loss(KEEPALIVE["TCP_USER_TIMEOUT"] / 1000)
            raise lost or PeerLost("peer lost: a connection was closed; start all ranks again") from None
        answer: list[Any] = self._next_part(0)
        return answer

    def fail(self, reason: str, exit_code: int | None = None) -> None:
        """Tell the others why this rank ends, and leave. They end with ``exit_code``, if one is given."""
        for connection in self._connections.values():
            with suppress(OSError):
                connection.send({"failed": reason[:MAX_TEXT], "exit_code": exit_code})
        self.close()

    def close(self) -> None:
        """Leave. To be called after an exchange that all ranks took part in, so that none is missed."""
        self._closing = True
        for connection in self._connections.values():
            with suppress(OSError):
                connection.send({"bye": True})
            connection.close()

    def _next_part(self, rank: int) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._parts[rank] or self._lost is not None)
            if self._parts[rank]:
                return self._parts[rank].pop(0)
            assert self._lost is not None
            raise self._lost

    def _read(self, rank: int, connection: Connection) -> None:
        try:
            while True:
                message = connection.receive()
                if "bye" in message:
                    return
                if "failed" in message:
                    self._note_lost(rank, str(message["failed"]), message["exit_code"])
                    return
                if "lost" in message:
                    self._note_lost(int(message["lost"]), str(message["reason"]), message["exit_code"])
                    return
                with self._changed:
                    self._parts[rank].append(message["parts"] if "parts" in message else message["part"])
                    self._changed.notify_all()
        except (OSError, KeyError, ValueError, TypeError) as error:
            self._note_lost(rank, _reason(error))

    def _note_lost(self, rank: int, reason: str, exit_code: int | None = None) -> None:
        if self._closing:
            return
        node = self.nodes[rank] if 0 <= rank < len(self.nodes) else "?"
        with self._changed:
            if self._lost is not None:
                return
            text = escape_control_chars(reason)[:MAX_TEXT]
            self._lost = PeerLost(
                f"peer lost: rank {rank} (node {node}): {text}; start all ranks again; "
                "with --checkpoint-dir they resume"
            )
            for interrupted in (ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_BY_KEYBOARD):
                if exit_code == interrupted:
                    self._lost.exit_code = interrupted
            on_lost, lost = self._on_lost, self._lost
            self._changed.notify_all()
        if self._place.rank == 0:
            for other, connection in self._connections.items():
                if other != rank:
                    with suppress(OSError):
                        connection.send({"lost": rank, "reason": reason[:MAX_TEXT], "exit_code": exit_code})
        on_lost(lost)


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
    # With ranks on one machine nothing else needs to reach the port.
    host = "127.0.0.1" if place.control[0] in {"127.0.0.1", "localhost"} else ""
    try:
        server = socket.create_server((host, port), backlog=place.size)
    except OSError as error:
        raise RanksNotConnected(
            f"port {port} of rank 0 cannot be used for the control channel ({error.strerror}); "
            "end the program that has it, or choose another with MNIST_JOBS_RANK_CONTROL_PORT in all ranks"
        ) from error
    connections: dict[int, Connection] = {}
    nodes = {0: hello["node"]}
    with server:
        while len(connections) < place.size - 1:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                missing = [rank for rank in range(1, place.size) if rank not in connections]
                _refuse_all(connections, f"ranks {missing} did not come")
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


def _accept(
    stream: socket.socket, place: RankPlace, connections: dict[int, Connection]
) -> tuple[int, Connection, str] | None:
    """The rank that connected; ``None`` if it is none of this run, which is then told so."""
    connection = Connection(stream)
    connection.set_timeout(HELLO_S)
    with suppress(OSError):
        hello = connection.receive()
        rank = hello.get("rank")
        if hello.get("token") != place.token:
            refusal = "another run"
        elif hello.get("size") != place.size:
            refusal = f"rank 0 has {place.size} ranks, not {hello.get('size')}"
        elif type(rank) is not int or not 0 < rank < place.size:
            refusal = f"rank {rank} of {place.size}"
        elif rank in connections:
            refusal = f"another process is rank {rank}"
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
            connection = Connection(socket.create_connection((host, port), timeout=left_s))
        except OSError as error:
            reason = _reason(error)
            threading.Event().wait(min(RETRY_S, left_s))
            continue
        try:
            connection.set_timeout(max(deadline_s - time.monotonic(), RETRY_S))
            connection.send(hello)
            answer = connection.receive()
        except OSError as error:
            connection.close()
            reason = f"connected, and then {_reason(error)}"
            threading.Event().wait(min(RETRY_S, left_s))
            continue
        if isinstance(answer.get("nodes"), list):
            return Channel(place, {0: connection}, [str(node) for node in answer["nodes"]])
        connection.close()
        raise RanksNotConnected(
            f"rank 0 at {host}:{port} refuses rank {place.rank}: {answer.get('refused', 'no reason given')}; "
            "start all ranks of one run with the same options"
        )
    raise RanksNotConnected(
        f"rank {place.rank} did not reach rank 0 at {host}:{port} within {timeout_s:.0f} s ({reason}); "
        "start rank 0, and check the name, the port and the network policy; --rank-timeout waits longer"
    )


def _refuse_all(connections: dict[int, Connection], reason: str) -> None:
    for connection in connections.values():
        with suppress(OSError):
            connection.send({"refused": reason})
        connection.close()


def _named(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
