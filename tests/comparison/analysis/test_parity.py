from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.analysis.parity import (
    TOLERANCE,
    Trace,
    compare,
    pair_traces,
    relative_difference,
    trace_of,
)
from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.tables import parity_table
from jobs.comparison.schema_parity import ParitySetting, RoundingCheck, TrainingCode
from tests.comparison.comparisons import compare as merge
from tests.comparison.comparisons import parity_report, terminal
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.schema_parity import ParityPair

SETTING = ParitySetting(
    recipe="lenet", precision="fp64", seed=1, batch_size=64, learning_rate=0.001, dataset_sha256="5a" * 32
)
SINGLE = SETTING.model_copy(update={"precision": "fp32"})
CODE = TrainingCode(
    framework_version="1", package_version="1", precision="fp32", execution="graph", input="resident", device="cpu"
)


def make_trace(framework: Any = "torch", **changes: Any) -> Trace:
    trace = Trace(
        framework=framework,
        run_id=f"{framework}-run",
        attempt=1,
        setting=SETTING,
        code=CODE,
        initial_weights_sha256="aa" * 32,
        losses=array("d", [2.0, 1.5, 1.25, 1.0]),
        grad_norms=array("d", [0.5, 0.4, 0.3, 0.2]),
        first_logits=array("d", [0.0, -4.0, 1.0, 2.0]),
        logits_shape=(2, 2),
        weight_norms={"conv1.kernel": 2.0, "conv1.bias": 0.0},
        rounding=[],
    )
    return replace(trace, **changes)


def check(framework: Any = "torch", **changes: Any) -> RoundingCheck:
    given_values: dict[str, Any] = {
        "framework": framework,
        "quantity": "gradient",
        "weight": "conv1.kernel",
        "states": 8,
        "usual_error": 1e-6,
        "usual_bound": 2e-5,
        "largest_error": 1e-5,
        "largest_bound": 0.2,
        "largest_at_step": 5,
        "within": True,
    }
    return RoundingCheck(**{**given_values, **changes})


def single(framework: Any = "torch", **changes: Any) -> Trace:
    """A trace of a float32 run, whose rounding is within its envelope."""
    return make_trace(framework, **{"setting": SINGLE, "rounding": [check(framework)], **changes})


def past(pair: ParityPair) -> tuple[int, str] | None:
    step, name = pair.first_step_past_tolerance, pair.first_quantity_past_tolerance
    assert (step is None) == (name is None)
    return None if step is None or name is None else (step, name)


def test_compare_equal_traces_agree() -> None:
    pair = compare(make_trace("tensorflow"), make_trace())
    assert (pair.outcome, pair.steps, pair.largest_relative_difference, past(pair)) == ("agree", 4, 0.0, None)
    assert pair.tolerance_ratio == TOLERANCE == 1e-12
    assert pair.runs == {"tensorflow": "tensorflow-run", "torch": "torch-run"}
    assert pair.traced_code == {"tensorflow": CODE, "torch": CODE}


@pytest.mark.parametrize("make", [make_trace, single], ids=["fp64", "fp32"])
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
def test_compare_float64_difference_names_first_step_past_tolerance(
    make: Any, changes: Any, expected: tuple[int, str] | None
) -> None:
    """In every precision: the steps that the frameworks are compared over are float64."""
    pair = compare(make("tensorflow"), make(**changes))
    assert past(pair) == expected
    assert pair.outcome == ("agree" if expected is None else "differ")
    if expected is not None and expected[0] > 0:
        assert f"at step {expected[0]} " in pair.text


@pytest.mark.parametrize("coarse", ["tensorflow", "torch"])
def test_compare_coarse_rounding_names_framework_weight_and_bound(coarse: str) -> None:
    outside = check(coarse, usual_error=3e-3, within=False)
    traces = {name: single(name) for name in ("tensorflow", "torch")}
    traces[coarse] = single(coarse, rounding=[check(coarse), outside])
    pair = compare(traces["tensorflow"], traces["torch"])
    assert (pair.outcome, past(pair)) == ("rounds_too_coarsely", None)
    assert pair.text == (
        f"seed 1: {coarse} is further from float64 than float32 explains "
        "(gradient of conv1.kernel: 3.0e-03 off in three of four states, bound 2e-05)"
    )


def test_compare_maximum_past_bound_names_step() -> None:
    outside = check(quantity="logits", weight=None, largest_error=0.5, within=False)
    pair = compare(single("tensorflow"), single(rounding=[outside]))
    assert pair.outcome == "rounds_too_coarsely"
    assert "(logits: 5.0e-01 off at step 5, bound 2e-01)" in pair.text


def test_compare_float64_difference_outranks_rounding() -> None:
    other = single(losses=array("d", [2.0, 9.0, 9.0, 9.0]), rounding=[check(usual_error=1.0, within=False)])
    pair = compare(single("tensorflow"), other)
    assert (pair.outcome, past(pair)) == ("differ", (2, "loss"))


def test_compare_agreement_names_number_of_states() -> None:
    pair = compare(single("tensorflow", rounding=[check("tensorflow", states=12)]), single())
    assert pair.outcome == "agree"
    assert pair.text == (
        "4 steps in float64, seed 1: no difference, tolerance 1e-12; from 8 of their states, both round as float32 does"
    )
    assert [found.framework for found in pair.rounding] == ["tensorflow", "torch"]
    table = parity_table([pair], limit=1)
    assert dict(zip(table.headings, table.rows[0], strict=True))["rounding"] == (
        "at most 5 % of its bound (tensorflow, gradient of conv1.kernel)"
    )


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_compare_coarse_trace_of_older_release_is_not_judged(precision: str) -> None:
    setting = SETTING.model_copy(update={"precision": precision})
    old = make_trace("torch", setting=setting, code=None, losses=array("d", [2.0, 1.5, 1.3, 0.9]))
    pair = compare(make_trace("tensorflow", setting=setting, rounding=[check("tensorflow")]), old)
    assert (pair.outcome, pair.tolerance_ratio, past(pair)) == ("not_judged", None, None)
    assert pair.reason == "torch-run was traced by a release before report schema 1.2, without float64 beside it"
    assert pair.reason in pair.text


def test_compare_float64_trace_of_older_release_has_no_traced_code() -> None:
    pair = compare(make_trace("tensorflow", code=None), make_trace(code=None))
    assert (pair.outcome, pair.traced_code) == ("agree", {})


@pytest.mark.parametrize(("rounding", "states"), [([], 0), ([check(states=7)], 7)])
def test_compare_too_few_states_is_not_judged(rounding: Any, states: int) -> None:
    pair = compare(single("tensorflow"), single(rounding=rounding))
    assert pair.outcome == "not_judged"
    assert pair.reason == f"torch-run was compared with float64 from {states} states; 8 are needed"


def test_compare_trace_without_steps_is_not_judged() -> None:
    pair = compare(make_trace("tensorflow"), make_trace(losses=array("d"), grad_norms=array("d")))
    assert (pair.outcome, pair.reason) == ("not_judged", "a trace has no step")


def test_compare_other_initial_weights_is_reported_as_such() -> None:
    other = make_trace(initial_weights_sha256="bb" * 32, losses=array("d", [9.0, 9.0, 9.0, 9.0]))
    assert compare(make_trace("tensorflow"), other).outcome == "initial_weights_differ"


def test_compare_shorter_trace_uses_common_steps() -> None:
    short = make_trace(losses=array("d", [2.0, 1.5]), grad_norms=array("d", [0.5, 0.4]))
    pair = compare(make_trace("tensorflow"), short)
    assert (pair.outcome, pair.steps) == ("agree", 2)
    assert pair.quantities[3].largest_relative_difference is None
    assert pair.quantities[3].reason == "taken after 4 steps here and 2 there"


@pytest.mark.parametrize("changes", [{"logits_shape": (4,)}, {"weight_norms": {"conv1.kernel": 2.0}}])
def test_compare_other_shapes_differ(changes: Any) -> None:
    pair = compare(make_trace("tensorflow"), make_trace(**changes))
    assert pair.outcome == "differ"
    assert "the two models have other shapes" in pair.text


def test_pair_traces_of_other_settings_are_unpaired() -> None:
    traces = [
        make_trace("tensorflow"),
        make_trace("torch"),
        make_trace("torch", run_id="another-seed", setting=SETTING.model_copy(update={"seed": 2})),
        make_trace("torch", run_id="another-precision", setting=SINGLE),
        make_trace("tensorflow", run_id="a-second", losses=array("d", [2.0, 1.5, 1.25, 1.1])),
    ]
    pairs, alone = pair_traces(traces)
    assert [(pair.runs["tensorflow"], pair.runs["torch"], pair.outcome) for pair in pairs] == [
        ("a-second", "torch-run", "differ"),
        ("tensorflow-run", "torch-run", "agree"),
    ]
    assert {trace.run_id for trace in alone} == {"another-seed", "another-precision"}
    assert all(pair_traces(order) == (pairs, alone) for order in permutations(traces))


def test_pair_traces_of_fewer_runs_uses_last_trace_again() -> None:
    traces = [make_trace("tensorflow"), *(make_trace("torch", run_id=f"torch-{at}") for at in range(3))]
    pairs, unpaired = pair_traces(traces)
    assert [pair.runs["torch"] for pair in pairs] == ["torch-0", "torch-1", "torch-2"]
    assert {pair.runs["tensorflow"] for pair in pairs} == {"tensorflow-run"}
    assert unpaired == []


def test_compare_small_loss_is_relative_to_largest_loss_so_far() -> None:
    losses = array("d", [2.0, 1.5, 0.01, 0.01])
    rounded = array("d", [2.0, 1.5, 0.01 + 1e-13, 0.01])
    off = array("d", [2.0, 1.5, 0.01 * (1 + 1e-8), 0.01])
    straight = make_trace("tensorflow", losses=losses)
    assert compare(straight, make_trace(losses=rounded)).outcome == "agree"
    pair = compare(straight, make_trace(losses=off))
    assert (pair.first_step_past_tolerance, pair.first_quantity_past_tolerance) == (3, "loss")
    assert pair.largest_relative_difference == pytest.approx(0.01 * 1e-8 / 2.0)


def test_compare_loss_that_grows_later_keeps_earlier_difference() -> None:
    losses, off = array("d", [2.0, 2.0, 1e9, 1e9]), array("d", [2.0, 2.0 * (1 + 1e-11), 1e9, 1e9])
    pair = compare(make_trace("tensorflow", losses=losses), make_trace(losses=off))
    assert pair.first_step_past_tolerance == 2


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_relative_difference_is_symmetric_and_bounded(one: float, other: float) -> None:
    scale = max(abs(one), abs(other))
    found = relative_difference(one, other, scale)
    assert found == relative_difference(other, one, scale)
    assert 0 <= found <= 2
    assert (found == 0) == (one == other) or abs(one - other) < 1e-300


def test_trace_of_report_has_traced_code() -> None:
    trace = trace_of(parity_report("torch", precision="fp32"))
    assert trace is not None
    assert (list(trace.losses), trace.logits_shape, trace.setting.precision) == ([2.0, 1.5], (2,), "fp32")
    assert trace.code == TrainingCode(
        framework_version="2.15.0",
        package_version="0.1.0",
        precision="fp32",
        execution="eager",
        input="resident",
        device="cpu",
    )
    assert {(found.quantity, found.weight, found.states) for found in trace.rounding} == {
        ("loss", None, 8),
        ("logits", None, 8),
        ("gradient", "conv1.kernel", 8),
        ("update", "conv1.kernel", 8),
    }
    assert trace_of(make_report()) is None


def test_trace_of_schema_1_1_report_has_no_code() -> None:
    changes = {"parity.path": None, "parity.rounding": None, "schema_version": "1.1"}
    old = parity_report("torch", precision="fp32", changes=changes)
    trace = trace_of(old)
    assert trace is not None
    assert (trace.code, trace.rounding) == (None, [])
    comparison = merge(old, parity_report("tensorflow", precision="fp32"))
    assert [pair.outcome for pair in comparison.parity] == ["not_judged"]
    assert "parity-torch-fp32 was traced by a release before report schema 1.2" in comparison.parity[0].text


def test_merge_of_traces_without_timed_runs_makes_comparison() -> None:
    comparison = merge(parity_report("tensorflow"), parity_report("torch"), parity_report("torch", precision="fp32"))
    assert comparison.sections == []
    assert "parity of lenet: agree" in terminal(comparison)
    assert "has no counterpart" in terminal(comparison).replace("\n", " ")
    assert "| lenet | fp64 | 1 | 2 |" in render_markdown(comparison)
