"""The control channel: a TCP connection from every rank to rank 0, for small JSON values only.

The ranks agree through it, and notice at once when one is gone: the kernel closes the connections of a process that
ends, and its keepalive finds a machine that is gone.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import PeerLost
from jobs.exit_codes import ExitCode
from jobs.io.stdio import escape_control_chars
from jobs.ranks.connection import USER_TIMEOUT_MS, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.ranks.connection import Connection
    from jobs.ranks.place import RankPlace

MAX_TEXT: Final = 300


class Channel:
    """The channel in one rank. Rank 0 has a connection to each other rank, the others one to rank 0."""

    def __init__(self, place: RankPlace, connections: dict[int, Connection], nodes: list[str]) -> None:
        self.nodes = nodes
        self._place = place
        self._connections = connections
        self._changed = threading.Condition()
        self._parts: dict[int, list[Any]] = {rank: [] for rank in connections}
        self._left: set[int] = set()
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
            lost = self.wait_for_loss(USER_TIMEOUT_MS / 1000)
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
            self._changed.wait_for(lambda: self._parts[rank] or self._lost is not None or rank in self._left)
            if self._parts[rank]:
                return self._parts[rank].pop(0)
            raise self._lost or PeerLost(
                f"peer lost: rank {rank} (node {self.nodes[rank]}): it ended before the others; start all ranks again"
            )

    def _read(self, rank: int, connection: Connection) -> None:
        try:
            while True:
                message = connection.receive()
                if "bye" in message:
                    with self._changed:
                        self._left.add(rank)
                        self._changed.notify_all()
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
            self._note_lost(rank, reason_of(error))

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
