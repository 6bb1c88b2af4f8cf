from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from jobs.errors import PeerLost, RanksNotConnected
from jobs.exit_codes import ExitCode
from jobs.ranks.connection import Connection
from jobs.ranks.place import RankPlace
from jobs.ranks.rendezvous import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.ranks.channel import Channel

TIMEOUT_S = 20.0
PEER = """
import os, sys
from jobs.ranks.rendezvous import connect
from jobs.ranks.place import RankPlace
rank, size, port = map(int, sys.argv[1:])
control = ("127.0.0.1", port)
place = RankPlace(
    rank=rank, size=size, local_rank=rank, local_size=size, addresses=(), control=control, engine="torchrun"
)
channel = connect(place, node=f"node-{rank}", timeout_s=20)
channel.exchange(os.getpid())
sys.stdin.read()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def place_of(rank: int, size: int, port: int, token: str = "") -> RankPlace:
    return RankPlace(
        rank=rank,
        size=size,
        local_rank=rank,
        local_size=size,
        addresses=(),
        control=("127.0.0.1", port),
        engine="torchrun",
        token=token,
    )


@pytest.fixture
def channels() -> Iterator[Callable[[int], list[Channel]]]:
    opened: list[Channel] = []

    def open_all(size: int) -> list[Channel]:
        port = free_port()
        with ThreadPoolExecutor(size) as pool:
            opened.extend(
                pool.map(
                    lambda rank: connect(place_of(rank, size, port), node=f"node-{rank}", timeout_s=TIMEOUT_S),
                    range(size),
                )
            )
        return opened

    yield open_all
    for channel in opened:
        channel.close()


def exchange_all(channels: list[Channel], parts: list[Any]) -> list[list[Any]]:
    with ThreadPoolExecutor(len(channels)) as pool:
        return list(pool.map(lambda channel, part: channel.exchange(part), channels, parts))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_exchange_returns_every_part_by_rank_in_every_rank(size: int, channels: Callable[[int], list[Channel]]) -> None:
    opened = channels(size)
    for round_number in range(20):
        parts = [{"rank": rank, "round": round_number} for rank in range(size)]
        assert exchange_all(opened, parts) == [parts] * size
    assert opened[-1].nodes == [f"node-{rank}" for rank in range(size)]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_exchange_after_a_rank_ended_names_it_in_every_other(
    lost: int, channels: Callable[[int], list[Channel]]
) -> None:
    opened = channels(3)
    told: Queue[PeerLost] = Queue()
    others = [channel for rank, channel in enumerate(opened) if rank != lost]
    for channel in others:
        channel.call_on_lost(told.put)
    opened[lost].fail("out of memory\n\x1b[31m")
    for channel in others:
        with pytest.raises(PeerLost, match=rf"rank {lost} \(node node-{lost}\): out of memory\\n\\x1b"):
            channel.exchange(None)
    assert {str(told.get(timeout=TIMEOUT_S)) for _ in others} == {str(others[0].lost)}


@pytest.mark.parametrize("left", [0, 1])
def test_exchange_after_a_rank_left_too_early_names_it(left: int, channels: Callable[[int], list[Channel]]) -> None:
    opened = channels(2)
    opened[left].close()
    told: Queue[Exception] = Queue()

    def meet() -> None:
        try:
            opened[1 - left].exchange(None)
        except PeerLost as error:
            told.put(error)

    threading.Thread(target=meet, daemon=True).start()
    assert f"peer lost: rank {left} (node node-{left})" in str(told.get(timeout=TIMEOUT_S))


def test_exchange_after_an_interruption_ends_with_its_exit_code(channels: Callable[[int], list[Channel]]) -> None:
    opened = channels(3)
    opened[1].fail("interrupted by SIGTERM", int(ExitCode.INTERRUPTED))
    for rank in (0, 2):
        with pytest.raises(PeerLost) as raised:
            opened[rank].exchange(None)
        assert raised.value.exit_code == ExitCode.INTERRUPTED


@pytest.mark.parametrize("own", [0, 1])
def test_exchange_after_sigkill_of_a_process_names_it(own: int) -> None:
    port, size = free_port(), 3
    ranks = [rank for rank in range(size) if rank != own]
    processes = {
        rank: subprocess.Popen([sys.executable, "-c", PEER, str(rank), str(size), str(port)], stdin=subprocess.PIPE)
        for rank in ranks
    }
    channel = None
    try:
        channel = connect(place_of(own, size, port), node="here", timeout_s=TIMEOUT_S)
        assert channel.exchange(os.getpid())[own] == os.getpid()
        victim = ranks[0 if own else -1]
        processes[victim].kill()
        with pytest.raises(PeerLost, match=rf"rank {victim} \(node node-{victim}\)"):
            channel.exchange(None)
    finally:
        if channel is not None:
            channel.close()
        for process in processes.values():
            process.kill()
            process.communicate()


def test_close_after_the_last_exchange_loses_nobody(channels: Callable[[int], list[Channel]]) -> None:
    opened = channels(4)
    exchange_all(opened, [1, 2, 3, 4])
    for channel in opened:
        channel.close()
    assert [channel.lost for channel in opened] == [None] * 4


def test_connect_without_a_rank_names_it_within_the_time() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(connect, place_of(rank, 4, port), node="here", timeout_s=1.0 if rank == 0 else TIMEOUT_S)
            for rank in (0, 2)
        ]
        with pytest.raises(RanksNotConnected, match="ranks 1, 3 of 4 did not come within 1 s"):
            futures[0].result(timeout=TIMEOUT_S)
        with pytest.raises(
            RanksNotConnected, match="refuses rank 2: ranks 1, 3 did not come within 1 s; see their logs"
        ):
            futures[1].result(timeout=TIMEOUT_S)


def test_connect_of_a_rank_whose_time_ends_first_says_that_others_are_missing() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connect, place_of(0, 3, port), node="here", timeout_s=2.0)
        with pytest.raises(RanksNotConnected, match="rank 1 reached rank 0, but not all ranks came within 1 s"):
            connect(place_of(1, 3, port), node="here", timeout_s=1.0)
        with pytest.raises(RanksNotConnected, match="ranks 1, 2 of 3 did not come"):
            first.result(TIMEOUT_S)


def test_connect_whose_connection_times_out_before_the_limit_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port, failed = free_port(), threading.Event()
    receive = Connection.receive

    def fail_once(connection: Connection, within_s: float | None = None) -> dict[str, Any]:
        if within_s is None and not failed.is_set():
            failed.set()
            # As the system says it of a machine that is gone.
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return receive(connection, within_s)

    monkeypatch.setattr(Connection, "receive", fail_once)
    with ThreadPoolExecutor(3) as pool:
        second = pool.submit(connect, place_of(1, 3, port), node="there", timeout_s=TIMEOUT_S)
        first = pool.submit(connect, place_of(0, 3, port), node="here", timeout_s=TIMEOUT_S)
        assert failed.wait(TIMEOUT_S)
        third = pool.submit(connect, place_of(2, 3, port), node="there", timeout_s=TIMEOUT_S)
        channels = [future.result(TIMEOUT_S) for future in (first, second, third)]
    assert exchange_all(channels, [1, 2, 3]) == [[1, 2, 3]] * 3
    for channel in channels:
        channel.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_connect_by_ipv6_and_ipv4_reaches_rank_0() -> None:
    port = free_port()
    hosts = "::1", "::1", "127.0.0.1"
    places = [replace(place_of(rank, 3, port), control=(host, port)) for rank, host in enumerate(hosts)]
    with ThreadPoolExecutor(3) as pool:
        channels = list(pool.map(lambda place: connect(place, node="here", timeout_s=TIMEOUT_S), places))
    assert exchange_all(channels, [1, 2, 3]) == [[1, 2, 3]] * 3
    for channel in channels:
        channel.close()


def test_connect_without_rank_0_says_where_it_should_be() -> None:
    port = free_port()
    with pytest.raises(RanksNotConnected, match=f"rank 1 did not reach rank 0 at 127.0.0.1:{port} within 1 s"):
        connect(place_of(1, 2, port), node="here", timeout_s=1.0)


def test_connect_with_a_host_that_is_no_name_says_so_at_once() -> None:
    place = replace(place_of(1, 2, free_port()), control=("a..b", 1))
    with pytest.raises(RanksNotConnected, match=r"rank 0's host 'a\.\.b' is no name of a host"):
        connect(place, node="here", timeout_s=TIMEOUT_S)


def test_connect_with_a_port_in_use_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with pytest.raises(RanksNotConnected, match=f"port {port} of rank 0 cannot be used"):
            connect(place_of(0, 2, port), node="here", timeout_s=1.0)


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        json.dumps({"rank": 1, "size": 2, "token": "another"}).encode() + b"\n",
        json.dumps({"rank": True, "size": 2, "token": ""}).encode() + b"\n",
        json.dumps({"rank": 1, "size": 3, "token": ""}).encode() + b"\n",
        b"x" * (1 << 21),
    ],
)
def test_connect_with_a_stranger_goes_on_to_wait_for_the_rank(hello: bytes) -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(connect, place_of(0, 2, port), node="here", timeout_s=TIMEOUT_S)
        stranger = _stranger(port)
        with suppress(OSError):
            # Rank 0 may close the connection before it has all.
            stranger.sendall(hello)
            stranger.shutdown(socket.SHUT_WR)
        second = pool.submit(connect, place_of(1, 2, port), node="there", timeout_s=TIMEOUT_S)
        channels = [first.result(TIMEOUT_S), second.result(TIMEOUT_S)]
        stranger.close()
    assert exchange_all(channels, [1, 2]) == [[1, 2]] * 2
    for channel in channels:
        channel.close()


def _stranger(port: int) -> socket.socket:
    """A connection to rank 0, as soon as it listens."""
    ready = threading.Event()
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            ready.wait(0.01)


def test_connect_with_another_size_is_refused_with_both() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(connect, place_of(0, 2, port), node="here", timeout_s=2.0)
        with pytest.raises(RanksNotConnected, match="rank 0 has 2 ranks, not 3"):
            connect(place_of(1, 3, port), node="there", timeout_s=TIMEOUT_S)


def test_connect_of_a_rank_that_ended_and_starts_again_takes_its_place() -> None:
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(connect, place_of(0, 3, port), node="here", timeout_s=TIMEOUT_S)
        hello = {"rank": 1, "size": 3, "token": "", "node": "there"}
        with _stranger(port) as ended:
            ended.sendall(json.dumps(hello).encode() + b"\n")
        others = [pool.submit(connect, place_of(rank, 3, port), node="there", timeout_s=TIMEOUT_S) for rank in (1, 2)]
        channels = [first.result(TIMEOUT_S), *(other.result(TIMEOUT_S) for other in others)]
    assert exchange_all(channels, [1, 2, 3]) == [[1, 2, 3]] * 3
    for channel in channels:
        channel.close()


def test_receive_of_a_message_that_comes_byte_by_byte_ends_in_time() -> None:
    over = threading.Event()

    def drip(stream: socket.socket) -> None:
        while not over.wait(0.05):
            stream.send(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        here, there = socket.create_connection(server.getsockname()), server.accept()[0]
        with here, there:
            dripping = pool.submit(drip, there)
            started_s = time.monotonic()
            with pytest.raises(TimeoutError):
                Connection(here).receive(0.5)
            over.set()
            dripping.result()
            assert time.monotonic() - started_s < 5


def test_connect_that_reaches_itself_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    create_connection = socket.create_connection
    to_itself = threading.Event()

    def first_to_itself(address: Any, **options: Any) -> socket.socket:
        if not to_itself.is_set():
            # What happens by chance on one machine: the system's choice for this end is the port of rank 0.
            stream = create_connection(address, source_address=address, **options)
            to_itself.set()
            return stream
        return create_connection(address, **options)

    monkeypatch.setattr(socket, "create_connection", first_to_itself)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(connect, place_of(1, 2, port), node="there", timeout_s=TIMEOUT_S)
        assert to_itself.wait(TIMEOUT_S)
        first = pool.submit(_connect_first, place_of(0, 2, port))
        channels = [first.result(TIMEOUT_S), second.result(TIMEOUT_S)]
    assert exchange_all(channels, [1, 2]) == [[1, 2]] * 2
    for channel in channels:
        channel.close()


def _connect_first(place: RankPlace) -> Channel:
    """Rank 0's side, as soon as the port is free."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return connect(place, node="here", timeout_s=TIMEOUT_S)
        except RanksNotConnected:
            if time.monotonic() > deadline_s:
                raise
