from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.comparison.analysis.comparability import group_comparable
from jobs.comparison.analysis.scaling import scaling_series
from jobs.comparison.build import build
from jobs.comparison.output.csv import csv_lines
from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import as_run, compare, loaded_from, side, terminal
from tests.support.ranked_reports import rank_parts, ranked_report
from tests.support.reports import make_report
from tests.support.simulated_runs import with_values

if TYPE_CHECKING:
    from jobs.comparison.schema_scaling import ScalingPoint
    from jobs.report import Report


def only_point(*reports: Report) -> ScalingPoint:
    (series,) = scaling_series(map(as_run, reports))
    (point,) = series.points
    return point


def test_sections_of_other_ranks_reduction_and_scaling_are_apart_and_not_refused() -> None:
    settings = [(2, "exact", "strong"), (4, "exact", "strong"), (4, "exact", "weak"), (4, "fast", "strong")]
    reports = [ranked_report(ranks, reduction=reduction, scaling=scaling) for ranks, reduction, scaling in settings]
    in_shards = make_report(run_id="shards", changes={"config.reduction": "exact"})
    comparison = compare(make_report(), in_shards, *reports)
    assert [(section.ranks, section.reduction, section.scaling) for section in comparison.sections] == [
        (1, None, None),
        (1, "exact", None),
        *settings,
    ]
    assert [section.title for section in comparison.sections][:3] == [
        "lenet, matched",
        "lenet, matched, 1 rank, exact",
        "lenet, matched, 2 ranks, exact, strong scaling",
    ]
    assert {len(section.runs) for section in comparison.sections} == {1}


def test_frameworks_of_the_same_ranks_are_compared() -> None:
    reports = [
        ranked_report(framework=framework, seed=seed, images_per_s=speed + seed)
        for framework, speed in (("tensorflow", 10_000.0), ("torch", 20_000.0))
        for seed in range(1, 6)
    ]
    (section,) = compare(*reports).sections
    assert {side.framework for side in section.sides} == {"tensorflow", "torch"}
    assert section.ratios[0].ratio == pytest.approx(2.0, rel=1e-3)


def test_batch_size_of_another_number_of_ranks_is_no_refusal() -> None:
    reports = [ranked_report(ranks, scaling="weak", changes={"config.batch_size": 64 * ranks}) for ranks in (2, 4)]
    assert len(group_comparable(list(map(as_run, reports)))) == 2
    (series,) = scaling_series(map(as_run, reports))
    assert series.batch_size == 64
    assert [point.ranks for point in series.points] == [2, 4]
    assert series.differences == []


@pytest.mark.parametrize("scaling", ["strong", "weak"])
def test_efficiency_of_one_run_is_a_single_observation(scaling: str) -> None:
    point = only_point(ranked_report(4, scaling=scaling, images_per_s=30_000.0, one_rank=10_000.0))
    efficiency = point.efficiency_ratio
    assert efficiency.value == pytest.approx(0.75)
    assert (efficiency.n, efficiency.low, efficiency.high) == (1, None, None)
    assert point.one_rank_images_per_s.value == 10_000.0
    assert "75.0 %" in render_markdown(compare(ranked_report(4, images_per_s=30_000.0, one_rank=10_000.0)))


def test_efficiency_takes_one_rank_of_the_same_job_only() -> None:
    """The second job was on a machine of half the speed. Medians of both would give 0.56 or more."""
    fast = ranked_report(2, seed=1, images_per_s=16_000.0, one_rank=10_000.0)
    slow = ranked_report(2, seed=2, images_per_s=8_000.0, one_rank=5_000.0)
    alone = make_report(run_id="alone", images_per_s=100_000.0)
    without = ranked_report(2, seed=3, images_per_s=9_000.0)
    point = only_point(fast, slow, alone, without)
    assert point.runs == 3
    assert point.efficiency_ratio.n == 2
    assert point.efficiency_ratio.value == pytest.approx(0.8)
    assert [(part.reason, part.runs) for part in point.efficiency_ratio.unmeasured] == [
        ("not asked for (--with-baseline), or nothing was timed", 1)
    ]


def test_efficiency_interval_covers_the_truth_in_nine_of_ten() -> None:
    random = np.random.default_rng(1)
    template = as_run(ranked_report(4, one_rank=10_000.0))
    covered, tries = 0, 400
    for at in range(tries):
        speeds = 32_000.0 * np.exp(random.normal(0, 0.05, 2 + at % 5))
        runs = [
            with_values(template, {"steady_images_per_s": float(speed)}, run_id=str(seed), seed=seed)
            for seed, speed in enumerate(speeds)
        ]
        (series,) = scaling_series(runs)
        found = series.points[0].efficiency_ratio
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.8 <= found.high
    # Of 400 with a rate of 0.9, 340 to 378 in 99.9 % (binomial distribution).
    assert 340 <= covered <= 378


def test_efficiency_of_failed_suspect_and_resumed_runs_does_not_count() -> None:
    good = ranked_report(2, seed=1, images_per_s=16_000.0, one_rank=10_000.0)
    failed = ranked_report(2, seed=2, images_per_s=1.0, one_rank=10_000.0, status="failed")
    suspect = {"status": "suspect", "causes": ["gpu_throttled"], "not_checked": []}
    disturbed = ranked_report(2, seed=3, images_per_s=1.0, one_rank=10_000.0, changes={"validity": suspect})
    earlier = {
        "attempt": 1, "started_at_utc": good.started_at_utc, "saved_at_utc": good.started_at_utc, "epoch": 1,
        "step": 1, "device": "cpu", "cpu_model": None, "phases_s": {},
    }  # fmt: skip
    changes = {"earlier_attempts": [earlier]}
    resumed = ranked_report(2, seed=4, images_per_s=1.0, one_rank=1e4, attempt=2, changes=changes)
    point = only_point(good, failed, disturbed, resumed)
    assert point.runs == 2
    assert point.efficiency_ratio.n == 1
    assert point.efficiency_ratio.value == pytest.approx(0.8)
    assert "resumed" in point.efficiency_ratio.unmeasured[0].reason


def test_series_of_other_precision_reduction_scaling_batch_and_framework_are_apart() -> None:
    reports = [
        ranked_report(2),
        ranked_report(4, changes={"config.precision": "fp64"}),
        ranked_report(2, reduction="fast"),
        ranked_report(2, scaling="weak"),
        ranked_report(8, changes={"config.batch_size": 128}),
        ranked_report(2, framework="tensorflow"),
    ]
    series = scaling_series(map(as_run, reports))
    assert len(series) == len(reports)
    assert len({one.title for one in series}) == len(reports)


def test_series_names_what_differs_beside_the_number_of_ranks() -> None:
    runs = map(as_run, [ranked_report(2), ranked_report(4, changes={"config.learning_rate": 0.5})])
    (series,) = scaling_series(runs)
    assert series.differences == ["config.learning_rate"]


def test_communication_and_wait_are_shares_of_the_time_of_all_ranks() -> None:
    # The second rank needs twice the time of the first, which waits for it. No communication beside.
    point = only_point(ranked_report(2, parts=rank_parts([[0.01, 0.02]] * 3, communication=0.0)))
    assert point.communication_ratio.value == pytest.approx(0.25)
    assert point.wait_ratio.value == pytest.approx(0.25)
    point = only_point(ranked_report(2, parts=rank_parts([[0.01, 0.01]] * 3, communication=0.25)))
    assert point.communication_ratio.value == pytest.approx(0.2)
    assert point.wait_ratio.value == 0.0


def test_times_that_are_null_give_the_reports_reason() -> None:
    untimed = dict.fromkeys(("compute_s", "communication_s", "wait_s"))
    parts = [part.model_copy(update=untimed) for part in rank_parts([[1, 1]])]
    report = ranked_report(2, parts=parts, one_rank=5_000.0)
    point = only_point(report)
    assert point.communication_ratio.value is None
    reason = "no epoch was finished, or the framework cannot time it on this device"
    assert point.communication_ratio.unmeasured[0].reason == reason
    assert point.efficiency_ratio.value == pytest.approx(1.0)
    assert f"— ({reason})" in render_markdown(compare(report))


def test_scaling_is_in_all_outputs() -> None:
    reports = [
        ranked_report(ranks, seed=seed, images_per_s=9_000.0 * ranks + seed, one_rank=10_000.0)
        for ranks in (2, 4)
        for seed in (1, 2, 3)
    ]
    comparison = compare(make_report(), *reports)
    shown = " ".join(terminal(comparison).split())
    title = "torch, lenet, matched, fp32, exact, strong scaling, batch of 64"
    assert f"scaling of {title}" in shown
    assert f"### {title}" in render_markdown(comparison)
    html = render_html(comparison, {})
    assert '<h2 id="scaling-heading">Scaling</h2>' in html
    assert "90.0 % (" in html
    rows = list(csv.DictReader(io.StringIO("".join(csv_lines(comparison)))))
    assert [(row["ranks"], row["reduction"], row["scaling"], row["efficiency_ratio"][:4]) for row in rows[:2]] == [
        ("1", "", "", ""),
        ("2", "exact", "strong", "0.90"),
    ]
    assert [*rows[0]][-1] == "comparison_id"


def test_one_rank_reports_have_no_scaling_and_say_nothing_of_ranks() -> None:
    comparison = compare(*side("torch", (1.0, 2.0)), make_report(framework="tensorflow"))
    assert comparison.scaling == []
    assert comparison.sections[0].rank_speeds == []
    assert " rank" not in terminal(comparison) + render_markdown(comparison)


def test_parity_of_training_in_shards_is_not_shown() -> None:
    (section,) = compare(ranked_report(2)).sections
    assert section.parity.text == "parity is not shown: traces are of whole batches, and these runs trained in shards"


def test_energy_of_several_ranks_is_that_of_all() -> None:
    parts = [part.model_copy(update={"energy_j": 300.0}) for part in rank_parts(np.full((3, 4), 0.01))]
    run = as_run(ranked_report(4, parts=parts, gpu=True, epochs=5))
    assert run.measured("gpu_energy_j") == 1200.0
    run = as_run(ranked_report(4, gpu=True, epochs=5))
    assert "GPU could not be read" in str(run.measured("gpu_energy_j"))


def test_nodes_and_gpus_of_a_run_are_those_of_all_ranks() -> None:
    kubernetes = {"node": "node-0", "namespace": "n", "pod": "p", "job": "j", "index": 0}
    run = as_run(ranked_report(2, changes={"environment.kubernetes": kubernetes}))
    assert (run.node, run.index) == ("node-0, node-1", None)
    (section,) = compare(
        *(ranked_report(2, seed=seed, changes={"environment.kubernetes": kubernetes}) for seed in range(5))
    ).sections
    assert section.sides[0].nodes == []


def test_gate_compares_the_same_number_of_ranks_only() -> None:
    def runs(ranks: int, speed: float) -> list[Report]:
        return [ranked_report(ranks, seed=seed, images_per_s=speed + seed) for seed in range(5)]

    before, now = runs(2, 10_000.0) + runs(4, 20_000.0), runs(2, 10_000.0) + runs(4, 10_000.0)
    found = build(loaded_from(*now), baseline=loaded_from(*before)).gate
    assert found is not None
    assert [(side.ranks, side.outcome) for side in found.sides] == [(2, "unchanged"), (4, "regression")]


@pytest.mark.parametrize(
    "changes",
    [
        {"config.ranks": 10**30},
        {"config.ranks": 3},
        {"config.batch_size": 10**40},
        {"ranks": []},
        {"ranks.0.compute_s": 1e308, "ranks.1.compute_s": 1e308},
        {"ranks.0.epochs.0.compute_s": 0.0},
        {"ranks.0.epochs.0.steps": 10**40},
        {"ranks.0.epochs": []},
        {"ranks.0.rank": 7},
        {"one_rank.images_per_s": 1e-300},
        {"one_rank.images_per_s": 0.0},
    ],
    ids=str,
)
def test_merge_of_values_that_no_job_writes_ends_without_an_error(changes: dict[str, Any]) -> None:
    reports = ranked_report(2, one_rank=1.0, changes=changes), ranked_report(2, seed=2, one_rank=1e30)
    comparison = compare(*reports, allow=("config.batch_size",))
    assert render_markdown(comparison)
    assert terminal(comparison)
    assert render_html(comparison, {})


def test_run_whose_ranks_differ_is_failed_by_its_report() -> None:
    reason = "the weights of ranks [1] differ from the others' after epoch 2"
    report = ranked_report(4, status="failed", changes={"status_reason": reason})
    (section,) = compare(report, ranked_report(4, seed=2)).sections
    assert section.sides[0].runs_by_status == {"completed": 1, "failed": 1}
    assert reason in {run.status_reason for run in section.runs}
