from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.analysis.expected import MissingRuns, missing_runs, parse_expected
from jobs.errors import BadInput
from tests.comparison.comparisons import as_run
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.input.run_summary import RunSummary


def runs_of(framework: Any, *seeds: int, indices: tuple[int, ...] = ()) -> list[RunSummary]:
    runs = []
    for at, seed in enumerate(seeds):
        kubernetes = {"node": None, "namespace": None, "pod": None, "job": None, "index": (indices or seeds)[at]}
        changes: dict[str, Any] = {"environment.kubernetes": kubernetes} if indices else {}
        report = make_report(framework=framework, seed=seed, run_id=f"{framework}-{at}", changes=changes)
        runs.append(as_run(report))
    return runs


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["10"], {None: 10}),
        (["10", "torch=8"], {None: 10, "torch": 8}),
        (["tensorflow=1"], {"tensorflow": 1}),
    ],
)
def test_parse_expected_number_is_of_each_framework_or_of_one(texts: list[str], expected: dict[Any, int]) -> None:
    assert parse_expected(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["0"], "--expect '0': give the number"),
        (["-1"], "--expect '-1'"),
        (["ten"], "--expect 'ten'"),
        (["٣"], "--expect"),
        (["9999999999"], "--expect"),
        (["jax=3"], "with tensorflow or torch"),
        (["torch="], "--expect 'torch='"),
        (["10", "9"], "10 was given before"),
        (["torch=3", "torch=3"], "3 was given before"),
    ],
)
def test_parse_expected_what_is_no_number_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_expected(texts)


def test_missing_runs_of_an_indexed_job_are_named_by_index() -> None:
    sides: Any = {"torch": runs_of("torch", 0, 1, 4, indices=(0, 1, 4))}
    assert missing_runs(sides, {None: 5}) == {"torch": MissingRuns(2, "index 2, 3")}
    assert missing_runs(sides, {None: 3}) == {}


def test_missing_runs_a_retried_index_counts_once() -> None:
    """Five runs arrived, and one of the five indices did not."""
    sides: Any = {"torch": runs_of("torch", 0, 1, 1, 2, 3, indices=(0, 1, 1, 2, 3))}
    assert missing_runs(sides, {None: 5}) == {"torch": MissingRuns(1, "index 4")}


def test_missing_runs_of_trials_in_an_indexed_job_are_counted_by_index_and_seed() -> None:
    sides: Any = {"torch": runs_of("torch", 1, 2, 1, 2, indices=(0, 0, 1, 1))}
    assert missing_runs(sides, {None: 4}) == {}


def test_missing_runs_are_named_by_the_other_sides_seeds() -> None:
    sides: Any = {"tensorflow": runs_of("tensorflow", 1, 2, 3, 4), "torch": runs_of("torch", 2, 3, 4)}
    assert missing_runs(sides, {None: 4}) == {"torch": MissingRuns(1, "seed 1")}


def test_missing_runs_of_consecutive_seeds_are_named_by_the_gap() -> None:
    sides: Any = {"torch": runs_of("torch", 5, 6, 9)}
    assert missing_runs(sides, {"torch": 5}) == {"torch": MissingRuns(2, "seed 7, 8")}


def test_missing_runs_of_equal_seeds_are_counted_only() -> None:
    sides: Any = {"torch": runs_of("torch", 1, 1, 1)}
    assert missing_runs(sides, {"torch": 5}) == {"torch": MissingRuns(2, "which is not known")}


def test_missing_runs_of_a_framework_without_any_need_its_name() -> None:
    sides: Any = {"tensorflow": runs_of("tensorflow", 1, 2)}
    assert missing_runs(sides, {None: 2}) == {}
    assert missing_runs(sides, {"torch": 2}) == {"torch": MissingRuns(2, "all 2")}
