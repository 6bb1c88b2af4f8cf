"""One TCP connection between two ranks: a JSON object on each line."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

MAX_LINE: Final = 1 << 20
"""Bytes of one message. A longer one is not of this program."""
USER_TIMEOUT_MS: Final = 20_000
"""A machine that does not answer for so long is lost."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": USER_TIMEOUT_MS}


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

    def receive(self, within_s: float | None = None) -> dict[str, Any]:
        """The next message; the whole of it within this time, if one is given.

        Raises:
            OSError: the connection is closed, or what came is no message of this program.
        """
        deadline_s = None if within_s is None else time.monotonic() + within_s
        while b"\n" not in self._received:
            if deadline_s is not None:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError("no whole message came in time")
                self._socket.settimeout(left_s)
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

    def has_ended(self) -> bool:
        """Whether the other side has closed the connection. Call it only while no message is expected."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        # A read waits up to the socket's time limit, even with MSG_DONTWAIT.
        if not poll.poll(0):
            return False
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def reason_of(error: Exception) -> str:
    """Why a connection failed, in the system's words where there are any."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
