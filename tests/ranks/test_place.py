from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadInput
from jobs.ranks.launcher import rank_variables
from jobs.ranks.place import find_place

if TYPE_CHECKING:
    from jobs.choices import FrameworkName
    from jobs.ranks.place import RankPlace

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "first"}
TORCHRUN |= {"MASTER_PORT": "29400"}
JOB = {"JOB_COMPLETION_INDEX": "1", "MNIST_JOBS_JOB_NAME": "mnist-torch"}


def find(
    variables: dict[str, str], framework: FrameworkName = "torch", ranks: int = 1, service: str | None = None
) -> RankPlace | None:
    return find_place(variables, framework=framework, ranks=ranks, service=service)


def tf_config(workers: list[Any], index: Any = 0, kind: str = "worker") -> dict[str, str]:
    cluster = {"cluster": {kind: workers}, "task": {"type": kind, "index": index}}
    return {"TF_CONFIG": json.dumps(cluster)}


def test_find_place_without_variables_is_none() -> None:
    assert find({}) is None
    assert find({"JOB_COMPLETION_INDEX": "3"}) is None, "the index of trials is no rank"
    assert find({"RANK": "0", "WORLD_SIZE": "1"}) is None


def test_find_place_of_torchrun_returns_its_variables() -> None:
    place = find(TORCHRUN)
    assert place is not None
    assert (place.rank, place.size, place.local_rank, place.local_size) == (1, 4, 1, 2)
    assert place.addresses == (("first", 29400),)
    assert place.control == ("first", 29401)


def test_find_place_of_tf_config_counts_the_workers_of_a_machine() -> None:
    place = find(tf_config(["a:1", "b:1", "b:2"], 2), "tensorflow")
    assert place is not None
    assert (place.rank, place.size, place.local_rank, place.local_size) == (2, 3, 1, 2)
    assert place.addresses == (("a", 1), ("b", 1), ("b", 2))
    assert place.control == ("a", 2)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_find_place_of_an_indexed_job_names_its_pods(framework: FrameworkName) -> None:
    place = find(JOB, framework, ranks=2, service="ranks")
    assert place is not None
    assert (place.rank, place.size, place.engine) == (1, 2, "indexed_job")
    assert place.addresses == (("mnist-torch-0.ranks", 29500), ("mnist-torch-1.ranks", 29500))
    assert place.control == ("mnist-torch-0.ranks", 29501)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_find_place_of_the_launcher_has_all_ranks(framework: FrameworkName) -> None:
    places = [
        find(dict(rank_variables(framework, rank=rank, ports=[5, 6, 7])), framework, ranks=3) for rank in range(3)
    ]
    assert [place and (place.rank, place.size, place.local_rank, place.local_size) for place in places] == [
        (rank, 3, rank, 3) for rank in range(3)
    ]


@pytest.mark.parametrize(
    ("variables", "framework", "ranks", "service", "message"),
    [
        (TORCHRUN | {"RANK": "4"}, "torch", 1, None, "RANK=4 is not below WORLD_SIZE=4"),
        (TORCHRUN | {"RANK": "²"}, "torch", 1, None, "RANK is '²'"),
        (TORCHRUN | {"RANK": "9" * 5000}, "torch", 1, None, "RANK is '9999"),
        (TORCHRUN | {"WORLD_SIZE": "16"}, "torch", 1, None, "16 ranks were started; at most 8"),
        (TORCHRUN | {"MASTER_PORT": "0"}, "torch", 1, None, "MASTER_PORT is 0"),
        (TORCHRUN, "torch", 2, None, "--ranks 2, but 4 ranks were started"),
        (TORCHRUN, "tensorflow", 1, None, "WORLD_SIZE says that there are 4 ranks"),
        (tf_config(["a:1", "b:1"]), "torch", 1, None, "TF_CONFIG says that there are 2 ranks"),
        (tf_config(["a:1", "b:1"], 2), "tensorflow", 1, None, "task index 2"),
        (tf_config(["a:1", "b:1"], True), "tensorflow", 1, None, "not a cluster of workers only"),
        (tf_config(["a:1", "b"]), "tensorflow", 1, None, "not a cluster of workers only"),
        (tf_config([1, 2]), "tensorflow", 1, None, "not a cluster of workers only"),
        (tf_config(["a:1", "b:1"], kind="ps"), "tensorflow", 1, None, "not a cluster of workers only"),
        (JOB, "torch", 1, "ranks", "give --ranks N"),
        (JOB | {"JOB_COMPLETION_INDEX": "2"}, "torch", 2, "ranks", "completions must be the same number"),
        ({"JOB_COMPLETION_INDEX": "0"}, "torch", 2, "ranks", "MNIST_JOBS_JOB_NAME"),
        (JOB, "torch", 2, "no service", "is no name of a service"),
    ],
)
def test_find_place_with_contradictions_names_them(
    variables: dict[str, str], framework: FrameworkName, ranks: int, service: str | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        find(variables, framework, ranks, service)


def test_find_place_of_tf_config_leaves_the_workers_their_ports() -> None:
    places = [find(tf_config(["a:5", "a:6", "b:7"], index), "tensorflow") for index in range(3)]
    assert [place and place.control for place in places] == [("a", 7)] * 3


@given(st.text())
def test_find_place_of_any_tf_config_is_a_place_or_bad_input(text: str) -> None:
    try:
        place = find({"TF_CONFIG": text}, "tensorflow")
    except BadInput:
        return
    assert place is None or place.rank < place.size


def test_find_place_in_tf_config_of_ipv6_addresses_has_no_brackets() -> None:
    place = find(tf_config(["[::1]:2222", "[fd00::2]:2222"]), "tensorflow")
    assert place is not None
    assert place.addresses == (("::1", 2222), ("fd00::2", 2222))
    assert place.control == ("::1", 2223)
