from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.parity import TOLERANCE, Setting, Trace, compare, line_up, relative_difference, trace_of
from jobs.comparison.render_markdown import render_markdown
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, parity_report, side, terminal
from tests.comparison.comparisons import compare as merge
from tests.support.reports import make_report

SETTING = Setting(
    recipe="lenet", precision="fp64", seed=1, batch_size=64, learning_rate=0.001, dataset_sha256="5a" * 32
)


def make_trace(framework: Any = "torch", **changes: Any) -> Trace:
    trace = Trace(
        framework=framework,
        run_id=f"{framework}-run",
        attempt=1,
        setting=SETTING,
        initial_weights_sha256="aa" * 32,
        losses=array("d", [2.0, 1.5, 1.25, 1.0]),
        grad_norms=array("d", [0.5, 0.4, 0.3, 0.2]),
        first_logits=array("d", [0.0, -4.0, 1.0, 2.0]),
        logits_shape=(2, 2),
        weight_norms={"conv1.kernel": 2.0, "conv1.bias": 0.0},
    )
    return replace(trace, **changes)


def past(**changes: Any) -> tuple[int, str] | None:
    return compare(make_trace("tensorflow"), make_trace(**changes)).first_past


def test_equal_traces_agree_to_the_last_step() -> None:
    pair = compare(make_trace("tensorflow"), make_trace())
    assert (pair.outcome, pair.steps, pair.largest, pair.first_past) == ("agree", 4, 0.0, None)
    assert pair.runs == {"tensorflow": "tensorflow-run", "torch": "torch-run"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"losses": array("d", [2.0, 1.5, 1.25 * (1 + 1e-11), 0.9])}, (3, "loss")),
        ({"grad_norms": array("d", [0.5, 0.4 * (1 - 1e-11), 0.3, 0.2])}, (2, "grad_norm")),
        ({"first_logits": array("d", [1e-11, -4.0, 1.0, 2.0])}, (0, "first_logits")),
        ({"weight_norms": {"conv1.kernel": 2.0, "conv1.bias": 1e-300}}, (4, "weight_norms")),
        (
            {"losses": array("d", [2.0, 1.0, 1.0, 1.0]), "grad_norms": array("d", [0.5, 0.5, 0.5, 0.5])},
            (2, "loss"),
        ),
        ({"losses": array("d", [2.0, 1.5 * (1 + 1e-13), 1.25, 1.0])}, None),
        # Rounding next to a logit of zero is as large as anywhere else in the batch.
        ({"first_logits": array("d", [1e-13, -4.0, 1.0, 2.0])}, None),
    ],
)
def test_the_first_step_past_the_tolerance_is_named(changes: Any, expected: tuple[int, str] | None) -> None:
    assert past(**changes) == expected


def test_float32_has_a_tolerance_of_its_own_and_bf16_none() -> None:
    for precision, outcome in (("fp32", "agree"), ("fp64", "differ"), ("bf16", "not_judged")):
        setting = replace(SETTING, precision=precision)
        other = make_trace(setting=setting, losses=array("d", [2.0, 1.5 * (1 + 1e-7), 1.25, 1.0]))
        pair = compare(make_trace("tensorflow", setting=setting), other)
        assert pair.outcome == outcome
        assert pair.tolerance == TOLERANCE.get(precision)
        assert pair.largest == pytest.approx(1e-7, rel=1e-6)


def test_other_initial_weights_are_named_as_such() -> None:
    other = make_trace(initial_weights_sha256="bb" * 32, losses=array("d", [9.0, 9.0, 9.0, 9.0]))
    assert compare(make_trace("tensorflow"), other).outcome == "initial_weights_differ"


def test_a_shorter_trace_is_compared_over_the_steps_both_took() -> None:
    short = make_trace(losses=array("d", [2.0, 1.5]), grad_norms=array("d", [0.5, 0.4]))
    pair = compare(make_trace("tensorflow"), short)
    assert (pair.outcome, pair.steps) == ("agree", 2)
    assert pair.quantities[3].largest is None
    assert pair.quantities[3].reason == "taken after 4 steps here and 2 there"


@pytest.mark.parametrize("changes", [{"logits_shape": (4,)}, {"weight_norms": {"conv1.kernel": 2.0}}])
def test_another_model_is_no_agreement(changes: Any) -> None:
    assert compare(make_trace("tensorflow"), make_trace(**changes)).outcome == "differ"


def test_only_one_setting_is_lined_up_and_the_rest_is_named() -> None:
    traces = [
        make_trace("tensorflow"),
        make_trace("torch"),
        make_trace("torch", run_id="another-seed", setting=replace(SETTING, seed=2)),
        make_trace("tensorflow", run_id="a-second", losses=array("d", [2.0, 1.5, 1.25, 1.1])),
    ]
    pairs, alone = line_up(traces)
    assert [(pair.runs["tensorflow"], pair.runs["torch"], pair.outcome) for pair in pairs] == [
        ("a-second", "torch-run", "differ"),
        ("tensorflow-run", "torch-run", "agree"),
    ]
    assert [trace.run_id for trace in alone] == ["another-seed"]
    assert all(line_up(order) == (pairs, alone) for order in permutations(traces))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_relative_difference_is_symmetric_and_bounded(one: float, other: float) -> None:
    found = relative_difference(one, other)
    assert found == relative_difference(other, one)
    assert 0 <= found <= 2
    assert (found == 0) == (one == other) or abs(one - other) < 1e-300


def timed() -> list[Any]:
    return [*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS)]


def test_a_report_s_trace_is_read() -> None:
    trace = trace_of(parity_report("torch"))
    assert trace is not None
    assert (list(trace.losses), trace.logits_shape, trace.setting.precision) == ([2.0, 1.5], (2,), "fp64")
    assert trace_of(make_report()) is None


def test_parity_that_holds_stands_beside_the_verdict() -> None:
    comparison = merge(*timed(), parity_report("tensorflow"), parity_report("torch"))
    (section,) = comparison.sections
    assert section.parity.outcome == "agree"
    assert section.parity.text == "parity holds: 2 steps in float64, seed 1: no difference, tolerance 1e-12"
    assert len(section.runs) == 10, "a run of no epoch is no timed run"
    assert comparison.parity[0].runs == {"tensorflow": "parity-tensorflow-fp64", "torch": "parity-torch-fp64"}


def test_parity_that_fails_is_said_next_to_the_verdict_everywhere() -> None:
    comparison = merge(*timed(), parity_report("tensorflow"), parity_report("torch", step=1.7))
    said = (
        "parity fails: in float64, seed 1 the traces part at step 2 (loss, 1.2e-01 apart at most in 2 steps; tolerance"
    )
    assert comparison.sections[0].parity.text.startswith(said)
    first_item = next(line for line in render_markdown(comparison).splitlines() if line.startswith("- "))
    assert f"**{said}" in first_item
    assert said in " ".join(terminal(comparison).replace("\x1b[1;31m", "").replace("\x1b[0m", "").split())


def test_float32_that_drifts_is_rounding_only_where_float64_agrees() -> None:
    single = [parity_report("tensorflow", precision="fp32"), parity_report("torch", precision="fp32", step=1.7)]
    (section,) = merge(*timed(), *single).sections
    assert section.parity.outcome == "differ"
    assert "only float64 can tell" in section.parity.text
    (section,) = merge(*timed(), *single, parity_report("tensorflow"), parity_report("torch")).sections
    assert section.parity.outcome == "agree"
    assert "which is rounding, as float64 shows" in section.parity.text


def test_other_initial_weights_make_parity_fail() -> None:
    comparison = merge(*timed(), parity_report("tensorflow"), parity_report("torch", weights="bb"))
    assert comparison.sections[0].parity.text.startswith("parity fails: the initial weights differ (float64, seed 1)")


def test_without_traces_it_says_how_to_make_them() -> None:
    (section,) = merge(*timed()).sections
    assert section.parity.outcome == "not_shown"
    assert "--parity-steps 200" in section.parity.text


def test_traces_alone_make_a_comparison_too() -> None:
    comparison = merge(parity_report("tensorflow"), parity_report("torch"), parity_report("torch", precision="fp32"))
    assert comparison.sections == []
    assert "parity of lenet: agree" in terminal(comparison)
    assert "has no counterpart" in terminal(comparison).replace("\n", " ")
    assert "| lenet | fp64 | 1 | 2 |" in render_markdown(comparison)
