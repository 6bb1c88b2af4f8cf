"""The verdict on runs by how they came about: in blocks, on nodes, in an order."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.comparison.comparisons import compare, only_section, terminal
from tests.support.reports import STARTED, make_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.schema import Verdict
    from jobs.report import Report

ROOT = Path(__file__).parents[3]
OVERLAY = "kubectl apply -k k8s/overlays/duel"
DUEL = ".venv/bin/python scripts/duel.py duel --blocks 10 -- --recipe lenet --protocol matched"
SCRIPT = f"{DUEL} --epochs 2 --batch-size 64 --learning-rate 0.001"
SPEED = {"tensorflow": 10_000.0, "torch": 12_000.0}
LETTER: dict[str, FrameworkName] = {"F": "tensorflow", "T": "torch"}


def run(at: int, framework: FrameworkName, *, node: str | None = "a", offset_h: float = 0, **changes: Any) -> Report:
    """The run that started ``at`` minutes after the first, of about its framework's speed."""
    started = STARTED + timedelta(minutes=at, hours=offset_h)
    kubernetes = None if node is None else {"node": node, "namespace": "n", "pod": "p", "job": "j", "index": 0}
    given = {
        "started_at_utc": started,
        "finished_at_utc": started + timedelta(seconds=30),
        "environment.kubernetes": kubernetes,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    speed = SPEED[framework] * (1 + 0.002 * (at % 5))
    return make_report(
        framework=framework, run_id=f"{framework}-{node}-{at}", seed=at, images_per_s=speed, changes=given
    )


def in_order(order: str, *, node: str | None = "a", **more: Any) -> list[Report]:
    """A run a minute: F of TensorFlow, T of torch."""
    return [run(at, LETTER[letter], node=node, **more) for at, letter in enumerate(order)]


def in_blocks(orders: Sequence[str], *, node: str | None = "a", plan: str = "plan", first: int = 0) -> list[Report]:
    return [
        run(
            2 * block + position,
            LETTER[letter],
            node=node,
            config__design={"plan_id": plan, "block": block, "position": position},
        )
        for block, order in enumerate(orders, start=first)
        for position, letter in enumerate(order)
    ]


def verdict_of(reports: Sequence[Report]) -> Verdict:
    return only_section(*reports).verdict


EIGHT = ("FT", "TF", "TF", "FT", "FT", "TF", "FT", "TF")


def test_verdict_of_eight_blocks_is_over_blocks() -> None:
    verdict = verdict_of(in_blocks(EIGHT))
    assert (verdict.kind, verdict.faster) == ("faster", "torch")
    assert verdict.p_value == pytest.approx(2 / 2**8)
    assert verdict.units is not None
    assert (verdict.units.unit, verdict.units.blocks, verdict.units.nodes) == ("block", 8, 1)
    assert "; 8 blocks; p 0.0078)" in verdict.text


def test_verdict_of_blocks_on_a_drifting_machine_is_that_of_a_steady_one() -> None:
    def slower(report: Report, at: int) -> Report:
        speed = report.results.steady_images_per_s
        assert speed is not None
        results = report.results.model_copy(update={"steady_images_per_s": speed * 0.5 ** (at // 2)})
        return report.model_copy(update={"results": results})

    blocks = in_blocks(EIGHT)
    steady = only_section(*blocks).ratios[0]
    drifting = only_section(*(slower(report, at) for at, report in enumerate(blocks))).ratios[0]
    assert drifting.model_dump() == pytest.approx(steady.model_dump())


def test_verdict_of_seven_blocks_names_how_many_are_needed() -> None:
    verdict = verdict_of(in_blocks(EIGHT[:7]))
    assert verdict.kind == "inconclusive"
    assert verdict.text.endswith("8 blocks are needed for a faster side")


def test_verdict_of_four_blocks_is_too_few() -> None:
    verdict = verdict_of([*in_blocks(EIGHT[:4]), *in_blocks(["F", "T"], first=4)])
    assert verdict.kind == "too_few_runs"
    assert verdict.text.startswith("too few blocks for a verdict: 4 whole blocks, 5 are needed")


def test_verdict_of_block_with_one_side_missing_leaves_it_out_and_says_so() -> None:
    section = only_section(*in_blocks((*EIGHT, "F")))
    assert section.verdict.faster == "torch"
    assert "not counted: 1 tensorflow run (its block has no torch run on the same node and GPU)" in section.verdict.text
    assert len(section.runs) == 17


@pytest.mark.parametrize(("lost", "kind"), [("T", "faster"), ("TT", "inconclusive"), ("FF", "faster")])
def test_verdict_of_blocks_with_lost_runs_allows_one_more_than_the_other_side(lost: str, kind: str) -> None:
    killed = [
        run(
            16 + 2 * at,
            LETTER[letter],
            status="failed",
            status_reason="killed",
            config__design={"plan_id": "plan", "block": 8 + at, "position": 0},
        )
        for at, letter in enumerate(lost)
    ]
    verdict = verdict_of([*in_blocks(EIGHT), *killed])
    assert verdict.kind == kind
    assert ("2 of torch's 10 runs did not complete" in verdict.text) == (kind == "inconclusive")


def test_verdict_of_two_plans_counts_both_and_says_so() -> None:
    verdict = verdict_of([*in_blocks(EIGHT[:5], plan="one"), *in_blocks(EIGHT[:5], plan="two", first=5)])
    assert verdict.faster == "torch"
    assert verdict.units is not None
    assert verdict.units.blocks == 10
    assert "; note: the blocks are of 2 plans: one, two; p is right only if it was decided before" in verdict.text
    assert "a plan that was added because another was inconclusive must be merged alone" in verdict.text


def test_verdict_of_unblocked_runs_beside_blocks_leaves_them_out() -> None:
    verdict = verdict_of([*in_blocks(EIGHT), run(100, "torch")])
    assert verdict.faster == "torch"
    assert "1 torch run (of no block, while others are)" in verdict.text


def test_verdict_of_blocks_in_the_same_order_is_confounded() -> None:
    verdict = verdict_of(in_blocks(["FT"] * 8))
    assert (verdict.kind, verdict.confounded_by, verdict.next_step) == ("confounded", "order", OVERLAY)
    assert "the torch run came last in every block" in verdict.text
    assert (verdict.p_value, verdict.faster) == (None, None)


def test_verdict_of_plan_on_two_nodes_has_a_block_of_each() -> None:
    nodes = [*in_blocks(EIGHT, node="a"), *in_blocks(EIGHT, node="b")]
    verdict = verdict_of(nodes)
    assert verdict.units is not None
    assert (verdict.units.unit, verdict.units.blocks, verdict.units.nodes) == ("node", 16, 2)
    assert "16 blocks on 2 nodes, a node is one observation" in verdict.text


@pytest.mark.parametrize(("nodes", "kind"), [("abc", "faster"), ("abcdefgh", "faster")])
def test_verdict_of_several_nodes_is_over_nodes(nodes: str, kind: str) -> None:
    assert verdict_of([report for node in nodes for report in in_blocks(EIGHT[:3], node=node)]).kind == kind


def test_verdict_of_one_run_a_side_and_node_names_how_many_are_needed() -> None:
    nodes = [(node, ("FT", "TF")[at % 2]) for at, node in enumerate("abcdefg")]
    verdict = verdict_of([report for node, order in nodes for report in in_order(order, node=node)])
    assert verdict.kind == "inconclusive"
    assert verdict.text.endswith("; at least two runs a side and node are needed for a faster side")
    twice = verdict_of([report for node, order in nodes for report in in_order(order + order[::-1], node=node)])
    assert (twice.kind, twice.faster) == ("faster", "torch")


def test_verdict_of_nodes_that_prefer_different_frameworks_is_inconclusive() -> None:
    reports = []
    for at, node in enumerate("abcd"):
        for report in in_blocks(EIGHT, node=node):
            speed = 10_000.0 + 4_000.0 * (at < 3 and report.config.framework == "torch") + 5 * at
            results = report.results.model_copy(update={"steady_images_per_s": speed})
            reports.append(report.model_copy(update={"results": results}))
    assert verdict_of(reports).kind == "inconclusive"


@pytest.mark.parametrize("order", ["FTFTFTFTFT", "TFTFTFTFTF", "FTTFFTTFFT"])
def test_verdict_of_runs_in_turn_is_over_runs(order: str) -> None:
    verdict = verdict_of(in_order(order))
    assert verdict.units is not None
    assert (verdict.units.unit, verdict.units.blocks) == ("run", None)
    assert verdict.confounded_by is None
    assert verdict.kind in {"faster", "inconclusive"}


@pytest.mark.parametrize(
    ("order", "last", "before"), [("FFFFFTTTTT", "torch", "tensorflow"), ("TTTTTFFFFFF", "tensorflow", "torch")]
)
def test_verdict_of_one_side_after_the_other_is_confounded(order: str, last: str, before: str) -> None:
    comparison = compare(*in_order(order, node=None))
    verdict = comparison.sections[0].verdict
    assert (verdict.kind, verdict.confounded_by, verdict.next_step) == ("confounded", "order", SCRIPT)
    assert (
        f"confounded: all {last} runs came after all {before} runs: order and framework cannot be told" in verdict.text
    )
    assert f"; to answer it: {SCRIPT}" in verdict.text
    assert {ratio.low for ratio in comparison.sections[0].ratios} == {None}
    assert "onfounded: all" in terminal(comparison)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"config__precision": "bf16", "config__repeat": 8}, f"{SCRIPT} --precision bf16 --repeat 8"),
        ({"config__execution": "compiled", "config__input": "streamed"}, " --execution compiled --input streamed"),
        ({"config__batch_size": 512, "config__epochs": 3}, f"{DUEL} --epochs 3 --batch-size 512 --learning-rate 0.001"),
    ],
)
def test_command_that_answers_a_confounded_comparison_has_the_options_of_its_runs(changes: Any, options: str) -> None:
    command = verdict_of(in_order("FFFFFTTTTT", node=None, **changes)).next_step
    assert command is not None
    assert command.endswith(options)


@pytest.mark.parametrize(
    ("name", "option"), [("synthetic", "--dataset synthetic"), ("idx:my digits", "--dataset './my digits'")]
)
def test_command_that_answers_a_confounded_comparison_has_its_data(name: str, option: str) -> None:
    runs = in_order("FFFFFTTTTT", node=None, config__dataset__name=name)
    assert f" --protocol matched {option} --epochs" in (verdict_of(runs).next_step or "")


def test_verdict_of_confounded_runs_does_not_count_those_that_were_left_out() -> None:
    backwards = run(12, "torch", finished_at_utc=STARTED - timedelta(hours=1))
    faster = backwards.model_copy(
        update={"results": backwards.results.model_copy(update={"steady_images_per_s": 1e6}), "run_id": "other"}
    )
    runs = in_order("FFFFFTTTTT")
    alone, verdict = verdict_of(runs), verdict_of([*runs, backwards, faster])
    assert verdict.kind == "confounded"
    assert verdict.text.partition(";")[0] == alone.text.partition(";")[0]
    assert "5 tensorflow and 5 torch runs)" in verdict.text
    assert "not counted: 2 torch runs (finished before it started" in verdict.text


def test_verdict_of_run_with_speed_of_zero_leaves_it_out_and_says_so() -> None:
    still = run(12, "torch")
    still = still.model_copy(update={"results": still.results.model_copy(update={"steady_images_per_s": 0.0})})
    runs = [*in_order("FTFTFTFTFTFT"), *in_order("FTFTFTFT", offset_h=1, config__seed=99)]
    runs = [one.model_copy(update={"run_id": f"run-{at}"}) for at, one in enumerate(runs)]
    verdict = verdict_of([*runs, still])
    assert (verdict.kind, verdict.faster) == ("faster", "torch")
    assert [(row.framework, row.why, row.runs) for row in verdict.left_out] == [
        ("torch", "a speed of 0, which has no ratio to another", 1)
    ]


def test_verdict_of_ratio_far_from_one_is_short() -> None:
    runs = in_order("FTFTFTFTFTFT")
    huge = [
        one.model_copy(update={"results": one.results.model_copy(update={"steady_images_per_s": 1e29})})
        if one.config.framework == "torch"
        else one.model_copy(update={"results": one.results.model_copy(update={"steady_images_per_s": 1e-29})})
        for one in runs
    ]
    assert "torch is faster: 1e+58 times" in verdict_of(huge).text
    assert "1e+58" in terminal(compare(*huge))


def test_verdict_of_long_stretches_is_confounded() -> None:
    verdict = verdict_of(in_order("FFFFFTTTTTFFFFFTTTTT"))
    assert (verdict.kind, verdict.confounded_by) == ("confounded", "order")
    assert "the frameworks took turns only 3 times in 20 runs" in verdict.text


def test_verdict_of_one_side_that_came_later_is_confounded() -> None:
    verdict = verdict_of(in_order("FFFFFTFTFTFTFTFTTTTT"))
    assert (verdict.kind, verdict.confounded_by) == ("confounded", "order")
    assert "most torch runs came later than the tensorflow runs" in verdict.text


def test_verdict_of_one_node_a_side_is_confounded() -> None:
    verdict = verdict_of([run(at, LETTER[letter], node=letter) for at, letter in enumerate("FTFTFTFTFT")])
    assert (verdict.kind, verdict.confounded_by, verdict.next_step) == ("confounded", "node", OVERLAY)
    assert "one node a side (tensorflow on F; torch on T): node and framework cannot be told apart" in verdict.text


def test_verdict_of_one_gpu_a_side_is_confounded() -> None:
    gpus = {"F": "GPU-1", "T": "GPU-2"}
    runs = []
    for at, letter in enumerate("FTFTFTFTFT"):
        started = STARTED + timedelta(minutes=at)
        changes = {"devices.0.uuid": gpus[letter], "started_at_utc": started, "finished_at_utc": started}
        runs.append(make_report(framework=LETTER[letter], seed=at, gpu=True, changes=changes))
    verdict = verdict_of(runs)
    assert (verdict.kind, verdict.confounded_by) == ("confounded", "node")
    assert verdict.next_step is not None
    assert " duel --gpu 0 --blocks" in verdict.next_step
    assert "one GPU a side (tensorflow on GPU-1; torch on GPU-2): GPU and framework cannot be" in verdict.text


def test_verdict_of_sides_that_share_nodes_but_no_gpu_names_the_gpu() -> None:
    runs = []
    for at, letter in enumerate("FTTFFTTFFTTF"):
        started = STARTED + timedelta(minutes=at)
        kubernetes = {"node": "ab"[at // 2 % 2], "namespace": None, "pod": None, "job": None, "index": None}
        changes = {"environment.kubernetes": kubernetes, "started_at_utc": started, "finished_at_utc": started}
        changes |= {"devices.0.uuid": f"GPU-{letter}"}
        runs.append(make_report(framework=LETTER[letter], seed=at, gpu=True, changes=changes))
    verdict = verdict_of(runs)
    assert verdict.kind == "confounded"
    assert "no GPU has runs of both (tensorflow on a GPU-F, b GPU-F; torch on a GPU-T, b GPU-T)" in verdict.text


def test_verdict_of_runs_on_unshared_nodes_leaves_them_out() -> None:
    verdict = verdict_of([*in_order("FTFTFTFTFTFT"), *in_order("TT", node="b")])
    assert verdict.faster == "torch"
    assert "not counted: 2 torch runs (no tensorflow run on the same node and GPU)" in verdict.text


def test_verdict_of_few_runs_on_shared_nodes_is_too_few() -> None:
    verdict = verdict_of([*in_order("FTFT"), *in_order("TTTT", node="b"), *in_order("FFFF", node="c")])
    assert verdict.kind == "too_few_runs"
    assert "2 tensorflow and 2 torch runs on shared nodes and GPUs" in verdict.text


def test_verdict_of_too_few_runs_says_that_more_would_not_help() -> None:
    verdict = verdict_of([run(at, LETTER[letter], node=letter) for at, letter in enumerate("FTFT")])
    assert verdict.kind == "too_few_runs"
    assert "; one node a side (tensorflow on F; torch on T)" in verdict.text


def test_verdict_of_run_that_finished_before_it_started_leaves_it_out() -> None:
    backwards = run(12, "torch", finished_at_utc=STARTED - timedelta(hours=1))
    section = only_section(*in_order("FTFTFTFTFTFT"), backwards)
    assert section.verdict.faster == "torch"
    assert "1 torch run (finished before it started, so its place in the order is not known)" in section.verdict.text
    assert len(section.runs) == 13


def test_verdict_of_blocks_whose_clocks_disagree_counts_them_and_says_so() -> None:
    blocks = in_blocks(EIGHT)
    set_back = run(14, "torch", offset_h=-1, config__design={"plan_id": "plan", "block": 7, "position": 1})
    swapped = [report for report in blocks if report.config.design and report.config.design.block != 7]
    other = run(15, "tensorflow", config__design={"plan_id": "plan", "block": 7, "position": 0})
    verdict = verdict_of([*swapped, set_back, other])
    assert verdict.faster == "torch"
    assert "; note: in 1 block the clocks or positions disagree with the plan's order" in verdict.text
    backwards = blocks[0].model_copy(update={"finished_at_utc": STARTED - timedelta(hours=1)})
    verdict = verdict_of([backwards, *blocks[1:]])
    assert verdict.faster == "torch"
    assert "1 tensorflow run finished before it started: the clock was set meanwhile" in verdict.text


def test_verdict_of_node_whose_clock_is_an_hour_off_is_the_same() -> None:
    right = [*in_order("FTFTFTFT"), *in_order("TFTFTFTF", node="b"), *in_order("FTTFFT", node="c")]
    off = [*in_order("FTFTFTFT"), *in_order("TFTFTFTF", node="b", offset_h=1), *in_order("FTTFFT", node="c")]
    assert verdict_of(off).text == verdict_of(right).text
    assert verdict_of(off).kind == "faster"


def test_verdict_of_clock_set_back_on_one_node_names_the_overlap() -> None:
    runs = in_order("FTFTFTFTFTFT")
    long = runs[0].model_copy(update={"finished_at_utc": STARTED + timedelta(seconds=90)})
    verdict = verdict_of([long, *runs[1:]])
    assert verdict.faster == "torch"
    assert (
        "1 run on a started before an earlier one ended: they shared it, or its clock was set meanwhile" in verdict.text
    )


def test_verdict_of_unchecked_runs_counts_and_names_them() -> None:
    unchecked = {"status": "unchecked", "causes": [], "not_checked": ["throttling", "XID errors"]}
    runs = in_order("FTFTFTFTFTFT", validity=unchecked)
    verdict = verdict_of(runs)
    assert verdict.faster == "torch"
    assert [(row.framework, row.not_checked, row.runs) for row in verdict.unchecked] == [
        ("tensorflow", "throttling, XID errors", 6),
        ("torch", "throttling, XID errors", 6),
    ]
    assert "; not checked for disturbances: 6 tensorflow runs (throttling, XID errors), 6 torch runs" in verdict.text


def test_verdict_of_suspect_run_in_a_block_leaves_the_block_out() -> None:
    blocks = in_blocks((*EIGHT, "FT"))
    validity = {"status": "suspect", "causes": ["gpu_throttled"], "not_checked": []}
    suspect = run(17, "torch", config__design={"plan_id": "plan", "block": 8, "position": 1}, validity=validity)
    verdict = verdict_of([*blocks[:-1], suspect])
    assert verdict.units is not None
    assert verdict.units.blocks == 8
    assert (
        "not counted: 1 tensorflow run (its block has no torch run on the same node and GPU), 1 torch run (suspect)"
        in (verdict.text)
    )


def test_command_that_answers_a_confounded_comparison_is_accepted() -> None:
    script, overlay = ROOT / "scripts/duel.py", ROOT / OVERLAY.rpartition(" ")[2] / "kustomization.yaml"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--blocks" in shown
    assert "--gpu" in shown
    assert overlay.is_file()
