from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from jobs.errors import NoUsableGpu
from jobs.io.cpus import usable_cpus
from jobs.ranks.place import RankPlace
from jobs.ranks.process import LAUNCHER_VARIABLE, THREAD_VARIABLES, choose_gpu, choose_threads

if TYPE_CHECKING:
    from jobs.choices import DeviceChoice

PLACE = RankPlace(rank=3, size=4, local_rank=1, local_size=2, addresses=(), control=("first", 29501), engine="torchrun")


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "gpu", "1"),
        (None, "auto", "1"),
        (None, "cpu", None),
        ("3,5", "gpu", "5"),
        ("GPU-a, GPU-b", "auto", "GPU-b"),
        ("", "auto", ""),
        ("7", "gpu", "7"),
    ],
)
def test_choose_gpu_leaves_the_rank_its_own(
    visible: str | None, device: DeviceChoice, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    choose_gpu(PLACE, device)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


def test_choose_gpu_with_one_rank_on_a_machine_leaves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    choose_gpu(replace(PLACE, local_rank=0, local_size=1), "gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_choose_gpu_with_more_ranks_than_gpus_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with pytest.raises(NoUsableGpu, match="4 ranks on this machine, but CUDA_VISIBLE_DEVICES lists 2 of the GPUs"):
        choose_gpu(replace(PLACE, local_rank=2, local_size=4), "gpu")


def test_choose_gpu_of_the_own_launcher_with_one_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(LAUNCHER_VARIABLE, "3")
    with pytest.raises(NoUsableGpu, match="2 ranks on this machine, but CUDA_VISIBLE_DEVICES lists 1 of the GPUs"):
        choose_gpu(PLACE, "auto")


def test_choose_threads_exact_is_one_whatever_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "4")
    choose_threads("exact", 1)
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"1"}


def test_choose_threads_fast_divides_the_cpus_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "3")
    monkeypatch.delenv(THREAD_VARIABLES[1], raising=False)
    choose_threads("fast", 2)
    assert os.environ[THREAD_VARIABLES[0]] == "3"
    assert os.environ[THREAD_VARIABLES[1]] == str(max(1, usable_cpus() // 2))
