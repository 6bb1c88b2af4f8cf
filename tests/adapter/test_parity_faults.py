"""Deliberate faults, really trained: parity must find each, and name the first step or the tensor that shows it.

Both traces come from the framework of this environment, so that the fault is all that differs.
``make parity-survey`` plants the same faults in either framework and holds them against the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.analysis.parity import TOLERANCE, compare
from jobs.recipes import BASIC_CNN, LENET, RECIPES
from jobs.training import seeding as draw
from jobs.training.parity_trace import batches_with_short_one, relative_error, take_step
from tests.support.digits import small_digits
from tests.support.faults import FAULTS, Fault
from tests.support.traces import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.comparison.analysis.parity import Trace
    from jobs.comparison.schema_parity import ParityPair
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

    Record = Callable[..., Trace]

BATCH = 16
EXAMPLES = 72
"""Four full batches and a short one; the first example, whose label one fault changes, is in one of them."""
STEPS = 5
ROUNDING_STEPS = 8

FIRST_SHOWN_IN_FLOAT64: dict[str, tuple[int, str]] = {
    # The first step's loss and gradient precede the first update: they cannot know.
    "epsilon 1e-8 for 1e-7": (2, "loss"),
    # The gradient is told by the optimizer's running average, which β₁ enters.
    "β cast through float32": (1, "grad_norm"),
    "Nesterov's form of momentum": (2, "loss"),
    "learning rate off by 1e-4": (2, "loss"),
    "dropout left on": (1, "loss"),
    "bias of the first layer missing": (0, "first_logits"),
    "one pixel's scaling 1 % off": (0, "first_logits"),
    "label off by one in 1 of 1,000": (5, "loss"),
    # The second step is that of the short batch.
    "mean over the padded batch": (2, "loss"),
}
SHOWN_BY_ROUNDING = {"inputs truncated as TF32 does": 1e-5, "bf16 where fp32 was asked": 1e-3}
"""Faults of precision, which float64 does not have, and the least that each moves the logits."""


@pytest.fixture(scope="module")
def few_digits() -> ImageDataset:
    return small_digits(train=EXAMPLES, test=10)


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[str, str], Trace]:
    """Faithful traces by recipe and precision, each recorded once."""
    return {}


@pytest.fixture
def trace(spec: Callable[..., RunSpec], framework: Framework, few_digits: ImageDataset) -> Record:
    def make(recipe: Recipe, precision: str = "fp64", **changes: Any) -> Trace:
        chosen = spec(recipe=recipe, precision=precision, batch_size=BATCH, **changes)
        return record(framework, chosen, few_digits, STEPS if precision == "fp64" else ROUNDING_STEPS)

    return make


@pytest.fixture
def faithful(trace: Record, recorded: dict[tuple[str, str], Trace]) -> Record:
    def make(recipe: Recipe, precision: str = "fp64") -> Trace:
        key = recipe.name, precision
        if key not in recorded:
            recorded[key] = trace(recipe, precision)
        return recorded[key]

    return make


def past(pair: ParityPair) -> tuple[int | None, str | None]:
    return pair.first_step_past_tolerance, pair.first_quantity_past_tolerance


def recipe_for(fault: Fault) -> Recipe:
    return LENET if fault.applies_to(LENET) else BASIC_CNN


def named(names: Any) -> list[Any]:
    return [pytest.param(fault, id=fault.name) for fault in FAULTS if fault.name in names]


def test_faults_every_one_has_a_case() -> None:
    assert len(FAULTS) == 11
    assert {fault.name for fault in FAULTS} == FIRST_SHOWN_IN_FLOAT64.keys() | SHOWN_BY_ROUNDING.keys()


@pytest.mark.parametrize("fault", named(FIRST_SHOWN_IN_FLOAT64))
def test_compare_mathematical_fault_is_found_at_its_first_step(
    fault: Fault, trace: Record, faithful: Record, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(fault)
    straight = faithful(recipe)
    fault.plant(framework.versions().name, monkeypatch)
    pair = compare(straight, trace(recipe))
    assert (pair.outcome, past(pair)) == ("differ", FIRST_SHOWN_IN_FLOAT64[fault.name]), pair.text


@pytest.mark.parametrize("fault", named(SHOWN_BY_ROUNDING))
def test_compare_precision_fault_is_found_by_rounding_only(
    fault: Fault, trace: Record, faithful: Record, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(fault)
    straight = faithful(recipe, "fp32")
    assert all(check.within for check in straight.rounding)
    fault.plant(framework.versions().name, monkeypatch)
    faulty = trace(recipe, "fp32")
    pair = compare(straight, faulty)
    assert (pair.outcome, past(pair)) == ("rounds_too_coarsely", (None, None)), pair.text
    outside = {(check.quantity, check.weight): check for check in faulty.rounding if not check.within}
    # It is in the forward pass, so that the logits show it, and through them every gradient.
    assert outside["logits", None].usual_error >= SHOWN_BY_ROUNDING[fault.name]
    assert {weight for quantity, weight in outside if quantity == "gradient"} == straight.weight_norms.keys()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_compare_second_run_agrees_in_all_steps(recipe: Recipe, trace: Record, faithful: Record) -> None:
    pair = compare(faithful(recipe), trace(recipe))
    assert (pair.outcome, past(pair), pair.steps) == ("agree", (None, None), STEPS)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compare_second_run_in_coarser_precision_agrees(precision: str, trace: Record, faithful: Record) -> None:
    pair = compare(faithful(LENET, precision), trace(LENET, precision))
    assert pair.outcome == "agree", pair.text
    assert {check.states for check in pair.rounding} == {ROUNDING_STEPS}


def test_adam_of_the_framework_differs_from_the_matched_one(
    spec: Callable[..., RunSpec], matched_trainer: Callable[[RunSpec], Trainer], digits: ImageDataset
) -> None:
    """In torch ε stands inside the corrected root; in Keras β and the learning rate pass through float32."""
    chosen = spec(recipe=BASIC_CNN.without_dropout(), precision="fp64", batch_size=BATCH)
    batch = next(batches_with_short_one(chosen, len(digits.train_images)))
    before = draw.initial_weights(chosen.recipe, chosen.seed)
    matched, own = (matched_trainer(chosen.replace(protocol=protocol)) for protocol in ("matched", "published"))
    assert take_step(own, batch) == pytest.approx(take_step(matched, batch), rel=TOLERANCE)
    exact, found = matched.weights(), own.weights()
    steps = {name: relative_error(found[name] - before[name], exact[name] - before[name]) for name in before}
    assert 1e-9 < min(steps.values()) <= max(steps.values()) < 0.5


def test_compare_shuffled_batch_is_named(trace: Record, faithful: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = faithful(LENET)

    def shuffled(seed: int, epoch: int, examples: int) -> Any:
        order = draw.epoch_order(seed, epoch, examples)
        # The batch of the third step trades half of its examples with that of the fifth.
        order[16:24], order[48:56] = order[48:56].copy(), order[16:24].copy()
        return order

    monkeypatch.setattr("jobs.training.parity_trace.epoch_order", shuffled)
    pair = compare(straight, trace(LENET))
    assert (pair.outcome, past(pair)) == ("differ", (3, "loss"))


def test_compare_another_order_inside_a_batch_agrees(
    trace: Record, faithful: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = faithful(LENET)

    def turned(seed: int, epoch: int, examples: int) -> Any:
        order = draw.epoch_order(seed, epoch, examples)
        order[16:32] = order[16:32][::-1].copy()
        return order

    monkeypatch.setattr("jobs.training.parity_trace.epoch_order", turned)
    assert compare(straight, trace(LENET)).outcome == "agree"


def test_compare_other_initial_weights_are_named(
    trace: Record, faithful: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = faithful(LENET)
    monkeypatch.setattr(
        "jobs.training.parity_trace.initial_weights", lambda recipe, seed: draw.initial_weights(recipe, seed + 1)
    )
    assert compare(straight, trace(LENET)).outcome == "initial_weights_differ"
