from __future__ import annotations

import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.analysis.fleet import by_node, second_pass
from jobs.comparison.output import tables
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import as_run, compare, terminal
from tests.support.reports import STARTED, make_report

if TYPE_CHECKING:
    from jobs.report import Report


def on_node(
    at: int, speed: float | None, *, seed: int = 1, status: str = "completed", minutes: int = 0, node: bool = True
) -> Report:
    kubernetes = {"node": f"node-{at}", "namespace": "n", "pod": "p", "job": "j", "index": 0} if node else None
    started = STARTED + timedelta(minutes=minutes)
    return make_report(
        gpu=True,
        run_id=f"run-{at}-{seed}-{minutes}",
        seed=seed,
        images_per_s=speed,
        status=status,
        changes={
            "environment.kubernetes": kubernetes,
            "devices.0.uuid": f"GPU-{at}",
            "started_at_utc": started,
            "finished_at_utc": started + timedelta(minutes=1),
        },
    )


def fleet(*speeds: float, node: bool = True) -> list[Report]:
    return [on_node(at, speed + seed, seed=seed, node=node) for at, speed in enumerate(speeds) for seed in (1, 2, 3)]


FIRST = (1000.0, 1005.0, 995.0, 1002.0, 700.0, 998.0)


def rerun(speeds: dict[int, float]) -> list[Report]:
    """The second pass: five runs of each of these nodes."""
    return [on_node(at, speed, seed=seed, minutes=10 * seed) for at, speed in speeds.items() for seed in range(1, 6)]


def outliers(reports: list[Report]) -> list[tuple[str | None, str | None]]:
    return [(node.node, node.outlier) for node in by_node(map(as_run, reports)) if node.outlier]


def test_by_node_slow_node_of_one_pass_is_to_be_confirmed_with_a_command() -> None:
    comparison = compare(*fleet(*FIRST))
    (section,) = comparison.sections
    (side,) = section.sides
    assert outliers(fleet(*FIRST)) == [("node-4", "to_confirm")]
    assert side.nodes[0].node == "node-4"
    assert side.second_pass is not None
    assert side.second_pass.again == ["node-4 GPU-4"]
    assert side.second_pass.beside == ["node-0 GPU-0", "node-5 GPU-5", "node-3 GPU-3"]
    assert side.second_pass.command == (
        "kubectl label nodes node-4 node-0 node-5 node-3 mnist-jobs/again=yes "
        "&& kubectl apply -k k8s/overlays/fleet-again"
    )
    said = "torch ran on 6 nodes; apart from the others: node-4 GPU-4 (slow, to be confirmed, 702.0 images/s); before"
    shown = " ".join(terminal(comparison).split())
    assert said in shown
    assert side.second_pass.command in shown
    assert f"- {said}" in render_markdown(comparison)


def test_by_node_slow_in_both_passes_is_named() -> None:
    reports = [*fleet(*FIRST), *rerun({4: 705.0, 0: 1000.0, 5: 1001.0, 3: 999.0})]
    assert outliers(reports) == [("node-4", "slow")]
    (section,) = compare(*reports).sections
    assert section.sides[0].second_pass is None
    assert "node-4 GPU-4 (slow in both passes" in tables.fleet_lines(section)[0]


def test_by_node_slow_in_first_pass_only_is_not_named() -> None:
    assert outliers([*fleet(*FIRST), *rerun({4: 990.0, 0: 1000.0, 5: 1001.0, 3: 999.0})]) == []


@pytest.mark.parametrize("again", [{4: 705.0}, {4: 705.0, 0: 1000.0, 5: 1001.0}])
def test_by_node_second_pass_without_three_others_confirms_nothing(again: dict[int, float]) -> None:
    assert outliers([*fleet(*FIRST), *rerun(again)]) == [("node-4", "to_confirm")]


def test_by_node_of_gpus_without_nodes_prints_a_loop_over_gpus() -> None:
    (section,) = compare(*fleet(*FIRST, node=False)).sections
    wanted = section.sides[0].second_pass
    assert wanted is not None
    train = "mnist-torch train --device gpu --recipe lenet --protocol matched"
    command = wanted.command.replace(train, "printenv CUDA_VISIBLE_DEVICES")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["GPU-4", "GPU-0", "GPU-5", "GPU-3"] * 5


def test_second_pass_runs_what_the_first_pass_ran() -> None:
    like = as_run(make_report(framework="tensorflow", recipe="basic-cnn", protocol="published"))
    wanted = second_pass(by_node(map(as_run, fleet(*FIRST, node=False))), like)
    assert wanted is not None
    assert "mnist-tf train --device gpu --recipe basic-cnn --protocol published;" in wanted.command


def test_by_node_fast_node_is_not_named() -> None:
    assert outliers(fleet(1000.0, 1005.0, 995.0, 1002.0, 1500.0)) == []


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
    assert outliers(reports) == [("node-0", "to_confirm")]


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
