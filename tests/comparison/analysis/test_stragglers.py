"""Ranks that compute for longer than the others of their run: named, and how often that is wrong. Seeded.

``make test-long`` simulates as many runs as docs/comparison.md states its rates for, and ``make test`` fewer. The
bounds are those that a program with just the stated rate passes with a probability of 99.9 % (binomial distribution).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from jobs.comparison.analysis import stragglers
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import as_run, compare, terminal
from tests.support.programs import rounds
from tests.support.ranked_reports import rank_parts, ranked_report
from tests.support.simulated_ranks import CASES, PROMISED, RANKS, RankCase, named
from tests.support.sleeping_ranks import sleeping_run

if TYPE_CHECKING:
    from jobs.comparison.schema_scaling import RankSpeeds
    from jobs.report import Report

RUNS = 1000
TRIED = rounds(150, RUNS)
SLEPT = rounds(2, 100)
SAMPLED = CASES if TRIED == RUNS else CASES[:2]


def max_count(rate: float, tried: int = TRIED) -> int:
    return int(stats.binom.ppf(0.999, tried, rate))


def speeds_of(*step_s: list[float], ranks: int | None = None) -> RankSpeeds:
    report = ranked_report(ranks or len(step_s[0]), parts=rank_parts(list(step_s)))
    found = stragglers.rank_speeds("torch", [as_run(report)])
    assert found is not None
    return found


EQUAL = [0.0100, 0.0101, 0.0099, 0.0100]
SLOW = [0.0100, 0.0101, 0.0121, 0.0100]


def test_slow_rank_is_named_with_each_epoch() -> None:
    found = speeds_of(*[SLOW] * 4, EQUAL)
    (straggler,) = found.stragglers
    assert (straggler.rank, straggler.node) == (2, "node-2")
    assert straggler.ratio == pytest.approx(1.21)
    assert [round(epoch.ratio, 2) for epoch in straggler.epochs] == [1.21, 1.21, 1.21, 1.21, 0.99]
    assert "rank 2 (node-2) in torch-4-exact-strong-1, 1.21 times their compute time (4 of 5 epochs)" in found.text


def test_rank_of_equal_ranks_is_not_named() -> None:
    found = speeds_of(*[EQUAL] * 5)
    assert (found.judged, found.stragglers) == (1, [])
    assert found.text == "no rank is slower than the others in 1 run"


def test_rank_that_was_slow_in_one_epoch_is_not_named() -> None:
    assert speeds_of([0.01, 0.03, 0.01, 0.01], *[EQUAL] * 4).stragglers == []


def test_rank_that_was_slow_in_three_of_five_epochs_is_not_named() -> None:
    assert speeds_of(*[SLOW] * 3, *[EQUAL] * 2).stragglers == []


def test_rank_that_is_fast_or_slower_by_less_than_a_tenth_is_not_named() -> None:
    assert speeds_of(*[[0.0100, 0.0050, 0.0109, 0.0100]] * 5).stragglers == []


def test_rank_that_waits_is_not_named() -> None:
    """The others' communication is longer, since they wait for the slow one."""
    assert [straggler.rank for straggler in speeds_of(*[SLOW] * 5).stragglers] == [2]


def test_slower_of_two_ranks_is_named_with_what_can_be_known() -> None:
    found = speeds_of(*[[0.0100, 0.0121]] * 5)
    assert [straggler.rank for straggler in found.stragglers] == [1]
    assert "of two ranks it is only known that one is slower than the other" in found.text


@pytest.mark.parametrize(
    ("step_s", "reason"),
    [([SLOW] * 2, "2 epochs, 3 are needed"), ([[0.01, 0.01, 0.02]] * 5, "3 ranks compute unequal parts of a step")],
)
def test_run_that_cannot_show_a_slow_rank_says_why(step_s: list[list[float]], reason: str) -> None:
    found = speeds_of(*step_s)
    assert (found.judged, found.stragglers) == (0, [])
    assert [part.reason for part in found.not_judged] == [reason]


def test_run_without_times_says_the_reports_reason() -> None:
    parts = rank_parts([EQUAL] * 5)
    epochs = [part.epochs[0].model_copy(update={"compute_s": None}) for part in parts]
    parts = [
        part.model_copy(update={"epochs": [epoch, *part.epochs[1:]]}) for part, epoch in zip(parts, epochs, strict=True)
    ]
    found = stragglers.rank_speeds("torch", [as_run(ranked_report(4, parts=parts))])
    assert found is not None
    assert [part.reason for part in found.not_judged] == ["the framework cannot time it on this device"]


def test_slow_rank_is_in_all_outputs() -> None:
    comparison = compare(ranked_report(4, parts=rank_parts([SLOW] * 5)))
    said = "torch: slower than the other ranks of the run: rank 2 (node-2)"
    assert said in " ".join(terminal(comparison).split())
    assert f"- {said}" in render_markdown(comparison)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", SAMPLED, ids=lambda case: case.name)
def test_run_of_equal_ranks_names_one_in_at_most_one_percent(case: RankCase, ranks: int) -> None:
    assert named(case, ranks, slow=False, seed=2, count=TRIED)["false"] <= max_count(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", [case for case in CASES if case.name in PROMISED], ids=lambda case: case.name)
def test_rank_slowed_by_a_fifth_is_named_in_at_least_95_percent(case: RankCase, ranks: int) -> None:
    assert named(case, ranks, slow=True, seed=2, count=TRIED)["found"] >= TRIED - max_count(0.05)


def test_reduced_numbers_detect_clearly_higher_rates() -> None:
    if TRIED < RUNS:
        assert stats.binom.sf(max_count(0.01), TRIED, 0.1) > 0.9
        assert stats.binom.cdf(TRIED - max_count(0.05) - 1, TRIED, 0.8) > 0.9


@pytest.mark.slow
def test_rank_that_sleeps_a_fifth_longer_in_its_steps_is_named() -> None:
    found = [_named_in(sleeping_run(4, slow=2, seed=seed)) for seed in range(SLEPT)]
    assert sum(2 in ranks for ranks in found) >= SLEPT - max_count(0.05, SLEPT)


@pytest.mark.slow
def test_ranks_that_sleep_equally_long_are_not_named() -> None:
    found = [_named_in(sleeping_run(4, slow=None, seed=seed)) for seed in range(SLEPT)]
    assert sum(bool(ranks) for ranks in found) <= max_count(0.01, SLEPT)


def _named_in(report: Report) -> set[int]:
    (section,) = compare(report).sections
    return {straggler.rank for speeds in section.rank_speeds for straggler in speeds.stragglers}


def test_limit_hardly_depends_on_the_number_of_draws() -> None:
    """The seeds of other sizes stand for other draws: neighbours are close."""
    limits = [stragglers._limit(4, epochs) for epochs in (10, 11, 12)]
    assert np.ptp(limits) < 0.35
