"""The ranks' sessions against one another, over the real control channel, in threads."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from jobs.adapter import FrameworkDevice, StepTimes
from jobs.errors import NoUsableGpu, PeerLost
from jobs.ranks.place import RankPlace
from jobs.telemetry.types import DeviceFacts
from jobs.training.rank_parts import RankParts, RanksDiffer
from jobs.training.rank_session import RankSession
from jobs.training.signals import InterruptGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import Trainer

WAIT_S = 30


@dataclass
class Stepped:
    """What a session asks of a trainer after an epoch."""

    weight: float = 0.0
    communication_s: float | None = 1.0

    def step_times(self) -> StepTimes:
        return StepTimes(steps=5, compute_s=2.0, communication_s=self.communication_s)

    def weights(self) -> dict[str, Any]:
        return {"w": np.full((2, 2), self.weight)}


@pytest.fixture
def in_all() -> Iterator[Callable[..., list[Any]]]:
    """Calls a function in each of three ranks' threads; the result has what it returned or raised, by rank."""
    size = 3
    with socket.create_server(("127.0.0.1", 0)) as server:
        control = ("127.0.0.1", int(server.getsockname()[1]))

    def connect(rank: int) -> RankSession:
        place = RankPlace(
            rank=rank, size=size, local_rank=rank, local_size=size, addresses=(), control=control, engine="torchrun"
        )
        return RankSession(place, guard=InterruptGuard(), timeout_s=WAIT_S)

    with ThreadPoolExecutor(size) as pool:
        sessions = list(pool.map(connect, range(size)))
        for session in sessions:
            assert session.channel is not None
            # A session ends its process some time after a loss, which is that of the tests here.
            session.channel.call_on_lost(lambda _: None)

        def call(function: Callable[[RankSession], Any]) -> list[Any]:
            futures = [pool.submit(function, session) for session in sessions]
            return [future.exception(WAIT_S) or future.result() for future in futures]

        yield call
    for session in sessions:
        session.close()


def device(kind: Any) -> tuple[FrameworkDevice, DeviceFacts]:
    return FrameworkDevice(kind=kind, index=0, name="a device"), DeviceFacts(mapping_method=None, null_reasons={})


def test_agree_on_device_where_a_rank_has_no_gpu_names_it_in_all(in_all: Callable[..., list[Any]]) -> None:
    def agree(session: RankSession) -> None:
        session.agree_on_device(*device("cpu" if session.group.rank == 1 else "gpu"))

    errors = in_all(agree)
    assert all(isinstance(error, NoUsableGpu) for error in errors)
    assert {str(error).partition(";")[0] for error in errors} == {
        "ranks [1] of 3 have no usable GPU, and the others have one"
    }


def test_agree_on_device_of_two_ranks_with_one_gpu_names_both(in_all: Callable[..., list[Any]]) -> None:
    def agree(session: RankSession) -> None:
        own = FrameworkDevice(kind="gpu", index=0, name="a GPU", uuid="GPU-b" if session.group.rank == 1 else "GPU-a")
        session.agree_on_device(own, DeviceFacts(mapping_method=None, null_reasons={}))

    errors = in_all(agree)
    assert all(isinstance(error, NoUsableGpu) for error in errors)
    assert {str(error).partition(",")[0] for error in errors} == {"ranks [0"}
    assert "ranks [0, 2] of 3 have the same GPU (GPU-a)" in str(errors[0])


def test_explained_collective_that_failed_while_all_ranks_are_there_is_its_cause(
    in_all: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.training.rank_session.LOSS_S", 0.2)

    def explain(session: RankSession) -> Any:
        if session.group.rank != 1:
            assert session.channel is not None
            return session.channel.wait_for_loss(WAIT_S)
        error = PeerLost("torch.distributed lost another rank")
        error.__cause__ = RuntimeError("an illegal memory access")
        return session.explained(error)

    found = in_all(explain)
    assert repr(found[1]) == "RuntimeError('an illegal memory access')"
    for lost in (found[0], found[2]):
        assert isinstance(lost, PeerLost)
        assert str(lost).startswith("peer lost: rank 1")
        assert "an illegal memory access" in str(lost)


def finish(session: RankSession, *, odd: int | None = None, evaluate: Callable[[], dict[str, Any]] = dict) -> Any:
    rank = session.group.rank
    trainer = Stepped(weight=float(rank == odd), communication_s=1.0 + rank)
    return session.finish_epoch(cast("Trainer", trainer), 1, evaluate)


def test_finish_epoch_with_a_rank_of_other_weights_names_it_and_the_steps(in_all: Callable[..., list[Any]]) -> None:
    errors = in_all(lambda session: finish(session, odd=2))
    assert all(isinstance(error, RanksDiffer) for error in errors)
    text = "the weights of ranks [2] differ from the others' after epoch 1, and were equal before its 5 steps"
    assert {str(error).partition(";")[0] for error in errors} == {text}


def test_finish_epoch_returns_rank_0s_evaluation_and_the_waits(in_all: Callable[..., list[Any]]) -> None:
    evaluated = []

    def evaluate() -> dict[str, Any]:
        evaluated.append(1)
        return {"loss": 0.5}

    in_all(lambda session: session.agree_on_device(*device("cpu")))
    assert in_all(lambda session: finish(session, evaluate=evaluate)) == [{"loss": 0.5}] * 3
    assert evaluated == [1]
    for parts in in_all(lambda session: session.rank_parts()):
        assert [part.wait_s for part in parts] == [0.0, 1.0, 2.0]
        assert [part.steps for part in parts] == [5, 5, 5]


def test_parts_without_a_time_of_a_rank_have_no_wait() -> None:
    epochs = [
        {"epoch": 1, "steps": 2, "compute_s": None, "communication_s": time_s, "weights_sha256": "0" * 64}
        for time_s in (1.0, None)
    ]
    parts = RankParts(2)
    parts.add_epoch(epochs)
    assert [parts.part(rank).wait_s for rank in range(2)] == [None, None]
    assert [parts.part(rank).compute_s for rank in range(2)] == [None, None]


def test_parts_of_two_ranks_that_differ_name_no_majority() -> None:
    epochs = [
        {"epoch": 3, "steps": 2, "compute_s": 1.0, "communication_s": 1.0, "weights_sha256": str(rank) * 64}
        for rank in range(2)
    ]
    with pytest.raises(RanksDiffer, match="2 different weights, and no majority has the same after epoch 3"):
        RankParts(2).add_epoch(epochs)
