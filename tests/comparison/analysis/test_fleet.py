from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.analysis.fleet import by_node
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import as_run, compare, terminal
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.report import Report


def on_node(at: int, speed: float | None, *, seed: int = 1, status: str = "completed") -> Report:
    kubernetes = {"node": f"node-{at}", "namespace": "n", "pod": "p", "job": "j", "index": 0}
    return make_report(
        gpu=True,
        run_id=f"run-{at}-{seed}",
        seed=seed,
        images_per_s=speed,
        status=status,
        changes={"environment.kubernetes": kubernetes, "devices.0.uuid": f"GPU-{at}"},
    )


def fleet(*speeds: float) -> list[Report]:
    return [on_node(at, speed + seed, seed=seed) for at, speed in enumerate(speeds) for seed in (1, 2, 3)]


def test_by_node_names_slow_node_and_gpu() -> None:
    comparison = compare(*fleet(1000.0, 1005.0, 995.0, 1002.0, 900.0, 998.0))
    (section,) = comparison.sections
    (side,) = section.sides
    assert [(node.node, node.gpu_uuids, node.median, node.n) for node in side.nodes if node.outlier == "slow"] == [
        ("node-4", ["GPU-4"], 902.0, 3)
    ]
    assert side.nodes[0].node == "node-4"
    said = "torch ran on 6 nodes; apart from the others: node-4 GPU-4 (slow, 902.0 images/s)"
    assert said in " ".join(terminal(comparison).split())
    assert f"- {said}\n" in render_markdown(comparison)


def test_by_node_names_fast_node() -> None:
    nodes = by_node(map(as_run, fleet(1000.0, 1005.0, 995.0, 1002.0, 1200.0)))
    assert [(node.node, node.outlier) for node in nodes if node.outlier] == [("node-4", "fast")]


def test_by_node_names_node_without_speed() -> None:
    reports = [*fleet(1000.0, 1001.0), on_node(7, None, status="failed")]
    nodes = by_node(map(as_run, reports))
    assert [(node.node, node.n, node.runs, node.outlier) for node in nodes if node.outlier] == [
        ("node-7", 0, 1, "no_speed")
    ]


def test_by_node_differences_under_three_percent_give_no_outlier() -> None:
    assert not any(node.outlier for node in by_node(map(as_run, fleet(1000.0, 1000.1, 999.9, 1000.0, 980.0))))


def test_by_node_mostly_equal_speeds_still_give_outlier() -> None:
    reports = [on_node(at, 1000.0 if at else 500.0) for at in range(12)]
    assert [(node.node, node.outlier) for node in by_node(map(as_run, reports)) if node.outlier] == [("node-0", "slow")]


def test_by_node_of_few_nodes_gives_no_outlier() -> None:
    assert [node.score for node in by_node(map(as_run, fleet(1000.0, 10.0)))] == [None, None]
    assert by_node(map(as_run, fleet(1000.0))) == []
    assert by_node([as_run(make_report())]) == []
    (section,) = compare(*fleet(1000.0, 10.0)).sections
    assert section.sides[0].nodes[0].outlier is None


@given(st.lists(st.floats(1.0, 1e6), min_size=5, max_size=9), st.sampled_from([0.5, 4.0]))
def test_by_node_in_another_unit_gives_same_outliers(speeds: list[float], factor: float) -> None:
    found = [
        [(node.node, node.outlier) for node in by_node(as_run(on_node(at, scale * s)) for at, s in enumerate(speeds))]
        for scale in (1.0, factor)
    ]
    assert sorted(found[0], key=str) == sorted(found[1], key=str)


@pytest.mark.parametrize(
    "speeds", [(0.0,) * 6, (0.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1e308,) * 6, (1e308, 1e-300, 1.0, 2.0, 1.7e308, 1e308)]
)
def test_by_node_of_extreme_speeds_gives_every_node(speeds: tuple[float, ...]) -> None:
    assert len(by_node(as_run(on_node(at, speed)) for at, speed in enumerate(speeds))) == 6
