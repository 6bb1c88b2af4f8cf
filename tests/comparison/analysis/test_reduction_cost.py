from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import compare, terminal
from tests.support.ranked_reports import ranked_report
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.report import Report


def whole(speed: float, seed: int = 1, **changes: Any) -> Report:
    return make_report(run_id=f"whole-{seed}", seed=seed, images_per_s=speed, changes=changes)


def in_shards(reduction: str, speed: float, seed: int = 1, **changes: Any) -> Report:
    """A run of one rank."""
    changes = {"config.reduction": reduction, **changes}
    return make_report(run_id=f"{reduction}-{seed}", seed=seed, images_per_s=speed, changes=changes)


def test_cost_of_one_rank_is_against_whole_batches_and_fast() -> None:
    costs = compare(whole(3000.0), in_shards("exact", 1000.0), in_shards("fast", 2000.0)).reduction_costs
    assert [(cost.ranks, cost.other, cost.ratio, cost.low) for cost in costs] == [
        (1, None, 3.0, None),
        (1, "fast", 2.0, None),
    ]
    assert [(cost.exact_images_per_s, cost.other_images_per_s) for cost in costs] == [(1000, 3000), (1000, 2000)]
    assert [cost.differences for cost in costs] == [[], []]


def test_cost_of_several_ranks_is_against_fast_with_as_many_ranks() -> None:
    reports = [
        ranked_report(ranks, reduction=reduction, images_per_s=speed)
        for ranks, reduction, speed in ((2, "exact", 1500.0), (2, "fast", 3000.0), (4, "exact", 9.0), (8, "fast", 9.0))
    ]
    (cost,) = compare(whole(3000.0), *reports).reduction_costs
    assert (cost.ranks, cost.other, cost.ratio) == (2, "fast", 2.0)


def test_cost_of_five_runs_each_has_an_interval() -> None:
    reports = [
        report
        for seed in range(1, 6)
        for report in (whole(3000.0 + 30 * seed, seed), in_shards("exact", 1000.0 + 10 * seed, seed))
    ]
    (cost,) = compare(*reports).reduction_costs
    assert cost.ratio == pytest.approx(3.0)
    assert cost.low is not None
    assert cost.high is not None
    assert 2.8 < cost.low < 3.0 < cost.high < 3.2
    assert (cost.exact_runs, cost.other_runs) == (5, 5)


def test_cost_of_runs_on_other_nodes_has_no_interval_and_says_so() -> None:
    pod = {"namespace": None, "pod": None, "job": None, "index": None}
    reports = [
        report
        for seed in range(1, 6)
        for report in (
            whole(3000.0 + 30 * seed, seed, **{"environment.kubernetes": {"node": "a", **pod}}),
            in_shards("exact", 1000.0 + 10 * seed, seed, **{"environment.kubernetes": {"node": "b", **pod}}),
        )
    ]
    (cost,) = compare(*reports).reduction_costs
    assert (cost.low, cost.high) == (None, None)
    assert cost.ratio == pytest.approx(3.0)
    assert cost.differences == ["environment.kubernetes.node"]


@pytest.mark.parametrize(
    "other",
    [
        {"config.batch_size": 128},
        {"config.precision": "bf16"},
        {"config.recipe": "basic-cnn"},
        {"config.framework": "tensorflow"},
        {"config.device": "gpu"},
        {"status": "failed", "status_reason": "a test"},
    ],
)
def test_cost_without_a_run_of_the_same_steps_is_not_shown(other: dict[str, Any]) -> None:
    comparison = compare(whole(3000.0, **other), in_shards("exact", 1000.0))
    assert comparison.reduction_costs == []
    assert "exact takes" not in render_markdown(comparison)


def test_cost_names_what_else_differs() -> None:
    exact = in_shards("exact", 1000.0, **{"config.numerics.intra_op_threads": 1})
    reports = whole(2000.0, **{"config.numerics.intra_op_threads": 2}), exact
    comparison = compare(*reports)
    (cost,) = comparison.reduction_costs
    assert cost.differences == ["config.numerics.intra_op_threads"]
    pages = render_markdown(comparison), terminal(comparison), render_html(comparison, {})
    for page in pages:
        text = " ".join(page.split())
        assert "whole batches" in text
        assert "config.numerics.intra_op_threads" in text
        assert "2.00 times as long" in text
