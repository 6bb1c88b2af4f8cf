"""Ranks of mnist-tf on this machine: processes that TensorFlow connects."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from jobs.errors import BadInput
from jobs.mnist_tf import framework
from jobs.mnist_tf.collectives import add_in_tree
from jobs.ranks.place import RankPlace
from tests.mnist_tf.rank_program import environment
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    {"recipe": recipe, "precision": precision, "reduction": "exact"}
    for recipe in ("lenet", "basic-cnn")
    for precision in ("fp32", "fp64")
]


def run_ranks(size: int, jobs: list[dict[str, Any]], *case: str) -> tuple[dict[int, list[dict[str, Any]]], Any]:
    """What each rank printed for each of ``jobs``, and the end of all (:func:`fork_ranks`)."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mnist_tf.rank_program", str(size), json.dumps(jobs), *case],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, last = map(json.loads, done.stdout.splitlines())
    return {rank: [line for line in lines if line["rank"] == rank] for rank in range(size)}, last


def bits(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["weights"], result["loss"], result["state"]


def test_add_in_tree_is_the_fixed_tree_wherever_it_is_cut() -> None:
    rows = np.random.default_rng(1).normal(size=(8, 1000)).astype(np.float32)
    tree = ((rows[0] + rows[1]) + (rows[2] + rows[3])) + ((rows[4] + rows[5]) + (rows[6] + rows[7]))
    in_graph = tf.function(add_in_tree)
    for ranks in (1, 2, 4, 8):
        own = [in_graph(tf.constant(part)) for part in np.split(rows, ranks)]
        assert np.array_equal(in_graph(tf.concat(own, 0))[0], tree)
    assert not np.array_equal(rows.sum(0), tree)


def test_ranks_have_the_bits_of_one_rank_and_go_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Dropout on, a short last batch, and a checkpoint in the middle of the second epoch."""
    job = {"recipe": "basic-cnn", "reduction": "exact", "stop_every": 2}
    checkpoint = {"at": [2, 4], "path": str(tmp_path / "state.npz")}
    alone, _ = run_ranks(1, [job | {"save": checkpoint}])
    together, end = run_ranks(2, [job, job | {"load": checkpoint}])
    assert end["codes"] == [0, 0]
    for whole, resumed in together.values():
        assert bits(whole) == bits(alone[0][0])
        assert resumed["weights"] == whole["weights"][1:]
        assert resumed["state"] == whole["state"]
        # The first step, and each multiple of two.
        assert {1, 2, 4, 6} <= {*whole["stops"]}
        assert whole["steps"] == 12
        assert 0 < whole["compute_s"] < 300
        assert 0 < whole["communication_s"] < 300


@pytest.mark.slow
def test_exact_has_the_same_bits_for_any_number_of_ranks() -> None:
    expected = [bits(result) for result in run_ranks(1, CASES)[0][0]]
    for size in (2, 4, 8):
        results, end = run_ranks(size, CASES)
        assert end["codes"] == [0] * size
        for of_rank in results.values():
            assert [bits(result) for result in of_rank] == expected, size


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fast_agrees_with_exact_in_fp64_with_dropout(size: int, tmp_path: Path) -> None:
    """Three ranks have 2, 3 and 3 shards."""
    job = {"recipe": "basic-cnn", "precision": "fp64", "epochs": 1}
    paths = {name: tmp_path / f"{name}.npz" for name in ("exact", "fast")}
    run_ranks(1, [job | {"reduction": "exact", "arrays": str(paths["exact"])}])
    results, end = run_ranks(size, [job | {"reduction": "fast", "arrays": str(paths["fast"])}])
    assert end["codes"] == [0] * size
    assert len({str(bits(of_rank[0])) for of_rank in results.values()}) == 1
    with np.load(paths["exact"]) as exact, np.load(paths["fast"]) as fast:
        for name, array in exact.items():
            assert np.abs(fast[name] - array).max() <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 3])
def test_killed_rank_makes_the_others_end_with_peer_lost(victim: int) -> None:
    job = {"recipe": "lenet", "reduction": "exact", "kill": {"at": [1, 3], "rank": victim}}
    results, end = run_ranks(4, [job])
    assert end["codes"] == [-9 if rank == victim else 13 for rank in range(4)]
    assert end["between_ends_s"] < 30
    for rank, lines in results.items():
        if rank != victim:
            assert lines[-1]["error"] == "PeerLost"
            assert f"rank {victim}" in lines[-1]["message"]


def test_join_ranks_started_by_torchrun_is_refused() -> None:
    place = RankPlace(
        rank=0,
        size=2,
        local_rank=0,
        local_size=2,
        addresses=(("127.0.0.1", 29500),),
        control=("127.0.0.1", 29501),
        engine="torchrun",
    )
    with pytest.raises(BadInput, match="torchrun starts the ranks of mnist-torch"):
        framework.join_ranks(place, timeout_s=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "rank", "message"),
    [("missing", 0, "answered within 5 s"), ("missing", 1, "answered within 5 s"), ("busy", 0, "is in use")],
)
def test_join_ranks_without_the_others_or_its_port_says_so(case: str, rank: int, message: str) -> None:
    results, end = run_ranks(2, [{"recipe": "lenet", "reduction": "exact"}], case, str(rank))
    assert end["codes"] == [12]
    assert results[rank][-1]["error"] == "RanksNotConnected"
    assert message in results[rank][-1]["message"]
