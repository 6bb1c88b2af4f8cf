"""The same bits on 1, 2, 4 and 8 ranks: processes on this machine, connected by gloo."""

from __future__ import annotations

import os
import signal
import time
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
import torch.distributed as dist

from jobs.choices import SHARDS
from jobs.errors import BadInput, PeerLost, RanksNotConnected
from jobs.mnist_torch.collectives import Collectives, StepClock, tree_sum
from jobs.mnist_torch.framework import join_ranks
from jobs.ranks.group import RankGroup
from jobs.recipes import BASIC_CNN, LENET, RECIPES
from jobs.training.seeding import epoch_order, shard_seeds
from tests.mnist_torch.ranks import digest, free_port, make_trainer, place_of, run_ranks, train

if TYPE_CHECKING:
    from jobs.ranks.place import RankPlace

CASES: Final = tuple(product(RECIPES, ("fp32", "fp64")))
IMAGES: Final = 58
"""Two batches of 24 and one of 10, of which 4 shards have no image."""


def train_cases(group: RankGroup, images: int, batch_size: int) -> dict[tuple[str, str], tuple[str, list[float]]]:
    """By recipe and precision: the SHA-256 of the training state, and the epochs' losses."""
    results = {}
    for recipe, precision in CASES:
        trainer = make_trainer(
            group, RECIPES[recipe], "exact", images=images, precision=precision, batch_size=batch_size
        )
        losses = train(trainer, images=images)
        results[recipe, precision] = digest(trainer), losses
    return results


@cache
def trained(size: int, images: int = IMAGES, batch_size: int = 24) -> list[Any]:
    return run_ranks(size, train_cases, images, batch_size)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_exact_any_number_of_ranks_gives_the_same_bits(size: int) -> None:
    (one,) = trained(1)
    assert set(one) == set(CASES), one
    assert trained(size) == [one] * size


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4, 8])
def test_exact_recipes_own_batches_give_the_same_bits(size: int) -> None:
    (one,) = trained(1, 330, 64)
    assert set(one) == set(CASES), one
    assert trained(size, 330, 64) == [one] * size


def weights_of_fast(group: RankGroup, images: int, batch_size: int) -> dict[str, Any]:
    trainer = make_trainer(group, BASIC_CNN, "fast", images=images, precision="fp64", batch_size=batch_size)
    (loss,) = train(trainer, images=images, epochs=1)
    return {"loss": loss} | trainer.weights()


@pytest.mark.parametrize(("size", "batch_size"), [(1, 24), (2, 24), (3, 8)])
def test_fast_any_number_of_ranks_agrees_with_exact(size: int, batch_size: int) -> None:
    """With dropout: both have the same masks. In batches of 8 a shard has one image; 3 ranks do not divide 8."""
    images = 2 * batch_size + 2
    exact = make_trainer(RankGroup(), BASIC_CNN, "exact", images=images, precision="fp64", batch_size=batch_size)
    (loss,) = train(exact, images=images, epochs=1)
    expected = {"loss": loss} | exact.weights()
    results = run_ranks(size, weights_of_fast, images, batch_size)
    for weights in results:
        for name, array in expected.items():
            assert np.abs(weights[name] - array).max() <= 1e-12, name
            assert np.array_equal(weights[name], results[0][name]), name


def test_exact_equals_one_process_without_shards() -> None:
    """The sum of the shards' gradients is the batch's, a short one included; without dropout, which differs."""
    recipe = BASIC_CNN.without_dropout()
    exact = make_trainer(RankGroup(), recipe, "exact", images=IMAGES, precision="fp64")
    plain = make_trainer(None, recipe, None, images=IMAGES, precision="fp64")
    assert train(exact, images=IMAGES, epochs=1) == pytest.approx(train(plain, images=IMAGES, epochs=1), rel=1e-12)
    expected = plain.weights()
    for name, array in exact.weights().items():
        assert np.abs(array - expected[name]).max() <= 1e-10, name
    assert plain.step_times() is None


class Stop(Exception):
    pass


def interrupted_and_resumed(group: RankGroup, stop_at: int) -> tuple[str, str, str]:
    """The states of a rank: at ``stop_at`` steps of the second epoch, at the end, and at the end after resuming."""

    def on_step(done: int) -> None:
        if done == stop_at:
            states.append((digest(first), first.state()))

    states: list[Any] = []
    make = partial(make_trainer, group, BASIC_CNN, "exact", images=IMAGES)
    order = epoch_order(1, 2, IMAGES)
    first = make()
    train(first, images=IMAGES, epochs=1)
    loss = first.train_epoch(order, on_step, epoch=2, stop_every=stop_at)
    at_stop, state = states[0]
    second = make()
    second.load_state(state)
    assert second.train_epoch(order, lambda _: None, epoch=2, done=stop_at) == loss
    return at_stop, digest(first), digest(second)


def test_resume_within_an_epoch_on_any_number_of_ranks_gives_the_same_bits() -> None:
    one = interrupted_and_resumed(RankGroup(), 2)
    assert one[1] == one[2]
    assert run_ranks(2, interrupted_and_resumed, 2) == [one, one]


def test_train_epoch_reports_stops_times_and_one_thread() -> None:
    trainer = make_trainer(RankGroup(), LENET, "exact", images=IMAGES)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert trainer.numerics.intra_op_threads == 1
        stops: list[int] = []
        trainer.train_epoch(epoch_order(1, 1, IMAGES), stops.append, epoch=1, stop_every=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert stops == [1, 2, 3]
    times = trainer.step_times()
    assert times is not None
    assert times.steps == 3
    assert times.compute_s
    assert times.communication_s == 0
    again = trainer.step_times()
    assert again is not None
    assert (again.steps, again.compute_s) == (0, 0)


def test_exact_number_of_threads_changes_no_bit() -> None:
    threads, digests = torch.get_num_threads(), set()
    for count in (1, 2):
        torch.set_num_threads(count)
        trainer = make_trainer(RankGroup(), LENET, "exact", images=IMAGES)
        train(trainer, images=IMAGES, epochs=1)
        digests.add(digest(trainer))
    torch.set_num_threads(threads)
    assert len(digests) == 1


def die_in_the_third_step(group: RankGroup) -> float:
    """The seconds until the lost rank was noticed; rank 1 kills itself while the others wait for its gradients."""
    trainer = make_trainer(group, LENET, "exact", images=IMAGES)
    losses, calls = trainer._losses, iter(range(3 * SHARDS))

    def dying(*batch: torch.Tensor) -> torch.Tensor:
        if group.rank == 1 and next(calls) == 2 * len(group.shards):
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(*batch)

    trainer._losses = dying  # type: ignore[assignment]
    start_s = time.monotonic()
    with pytest.raises(PeerLost, match=r"torch\.distributed lost another rank \(.+\)"):
        train(trainer, images=IMAGES)
    return time.monotonic() - start_s


def test_killed_rank_ends_the_others_within_30_s() -> None:
    first, killed, *others = run_ranks(4, die_in_the_third_step)
    assert killed is None
    assert max(first, *others) < 30


def test_collective_without_memory_is_no_lost_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dist, "all_reduce", fail)
    collectives = Collectives(RankGroup(size=2), [torch.zeros(3)], StepClock(torch.device("cpu")))
    with pytest.raises(torch.OutOfMemoryError):
        collectives.add_fast([torch.ones(3)])


def join_late(place: RankPlace) -> str:
    """The error of a rank whose peers never come."""
    with pytest.raises(RanksNotConnected) as refused:
        join_ranks(place, timeout_s=2)
    return str(refused.value)


@pytest.mark.parametrize("present", [0, 1], ids=["rank 0 alone", "rank 0 missing"])
def test_join_ranks_missing_rank_is_named(present: int) -> None:
    (message,) = run_ranks(1, partial(_join_as, present), joins=False)
    assert f"rank {present} of 2 could not join the others at 127.0.0.1:" in message
    assert "within 2 s" in message


def _join_as(rank: int, place: RankPlace) -> str:
    return join_late(place_of(rank, 2, place.addresses[0][1]))


def test_join_ranks_port_in_use_is_refused() -> None:
    import socket

    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        (message,) = run_ranks(1, partial(_join_at, port), joins=False)
    assert f"127.0.0.1:{port}" in message
    assert "the port is in use" in message


def _join_at(port: int, _: RankPlace) -> str:
    return join_late(place_of(0, 2, port))


def test_join_ranks_of_another_framework_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(BadInput, match="TF_CONFIG"):
        join_ranks(replace(place_of(0, 2, 1), engine="tf_config"), timeout_s=1)


@pytest.mark.parametrize("changes", [{"execution": "compiled"}, {"input": "streamed"}])
def test_create_trainer_ranks_of_an_unsupported_path_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="use --execution eager and --input resident"):
        make_trainer(RankGroup(), LENET, "exact", images=IMAGES, **changes)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_tree_sum_cut_anywhere_has_the_same_bits(count: int) -> None:
    torch.manual_seed(1)
    shards = [torch.randn(1000) * 10.0**power for power in range(-4, 4)]
    whole = tree_sum([shard.clone() for shard in shards])
    size = SHARDS // count
    parts = [tree_sum([shard.clone() for shard in shards[rank * size :][:size]]) for rank in range(count)]
    assert torch.equal(tree_sum(parts), whole)
    assert not torch.equal(whole, sum(shards[1:], shards[0]))


def test_shard_seeds_differ_by_seed_epoch_step_and_shard() -> None:
    seeds = np.concatenate([shard_seeds(seed, epoch, 20, SHARDS).ravel() for seed in (1, 2) for epoch in (1, 2)])
    assert len(np.unique(seeds)) == 2 * 2 * 20 * SHARDS
    # A shorter epoch has the same steps.
    assert np.array_equal(shard_seeds(1, 1, 5, SHARDS), shard_seeds(1, 1, 20, SHARDS)[:5])


@pytest.mark.parametrize("size", range(1, 9))
def test_group_shards_are_dealt_to_ranks_without_a_gap(size: int) -> None:
    dealt = [RankGroup(rank=rank, size=size).shards for rank in range(size)]
    assert [shard for shards in dealt for shard in shards] == list(range(SHARDS))
    assert all(dealt)
