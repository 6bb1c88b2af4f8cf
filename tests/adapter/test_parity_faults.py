"""Deliberate faults, really trained: parity must find each, and name the step from which on it shows.

Both traces come from the framework of this environment, so that the fault is all that differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.comparison.parity import compare
from jobs.harness import draw
from jobs.harness.recipe import BASIC_CNN, LENET, Adam
from tests.support.traces import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.comparison.parity import Trace
    from jobs.harness.data import DigitSet
    from jobs.harness.recipe import Recipe
    from jobs.harness.trainer import Framework, RunSpec

    Spec = Callable[..., RunSpec]

STEPS = 3
BATCH = 16
STILL = BASIC_CNN.without_dropout()


def through_float32(number: float) -> float:
    return float(np.float32(number))


def with_adam(**changes: Any) -> Recipe:
    assert isinstance(STILL.optimizer, Adam)
    return replace(STILL, optimizer=replace(STILL.optimizer, **changes))


@pytest.fixture(scope="module")
def faithful() -> dict[str, Trace]:
    """Recorded once; ``spec`` lives for one test only."""
    return {}


@pytest.fixture
def faithful_adam(spec: Spec, framework: Framework, digits: DigitSet, faithful: dict[str, Trace]) -> Trace:
    if "adam" not in faithful:
        faithful["adam"] = record(framework, spec(recipe=STILL, precision="fp64", batch_size=BATCH), digits, STEPS)
    return faithful["adam"]


def test_a_second_run_agrees_to_the_last_step(
    faithful_adam: Trace, spec: Spec, framework: Framework, digits: DigitSet
) -> None:
    again = record(framework, spec(recipe=STILL, precision="fp64", batch_size=BATCH), digits, STEPS)
    pair = compare(faithful_adam, again)
    assert (pair.outcome, pair.first_past, pair.steps) == ("agree", None, STEPS)


@pytest.mark.parametrize(
    "recipe",
    [
        with_adam(epsilon=1e-8),
        with_adam(beta_1=through_float32(0.9), beta_2=through_float32(0.999)),
        with_adam(beta_2=through_float32(0.999)),
    ],
    ids=["another epsilon", "betas through float32", "beta 2 through float32"],
)
def test_another_adam_shows_after_the_first_update(
    recipe: Recipe, faithful_adam: Trace, spec: Spec, framework: Framework, digits: DigitSet
) -> None:
    other = spec(recipe=recipe, precision="fp64", batch_size=BATCH)
    pair = compare(faithful_adam, record(framework, other, digits, STEPS))
    assert pair.outcome == "differ"
    # The first step's loss and gradient precede the first update: they cannot know.
    assert pair.first_past is not None
    assert pair.first_past[0] == 2


def test_the_framework_s_own_adam_is_not_the_matched_one(
    faithful_adam: Trace, spec: Spec, framework: Framework, digits: DigitSet
) -> None:
    """In torch ε stands inside the corrected root; in Keras β and the learning rate pass through float32."""
    own = spec(recipe=STILL, precision="fp64", protocol="published", batch_size=BATCH)
    pair = compare(faithful_adam, record(framework, own, digits, STEPS))
    assert (pair.outcome, pair.first_past) == ("differ", (2, "loss"))


def test_a_shuffled_batch_is_named(
    spec: Spec, framework: Framework, digits: DigitSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec(recipe=LENET, precision="fp64", batch_size=BATCH)
    straight = record(framework, chosen, digits, 5)

    def shuffled(seed: int, epoch: int, examples: int) -> Any:
        order = draw.epoch_order(seed, epoch, examples)
        # The third batch trades half of its examples with the last ones of the epoch.
        order[32:40], order[-8:] = order[-8:].copy(), order[32:40].copy()
        return order

    monkeypatch.setattr("jobs.harness.parity.epoch_order", shuffled)
    pair = compare(straight, record(framework, chosen, digits, 5))
    assert (pair.outcome, pair.first_past) == ("differ", (3, "loss"))


def test_the_order_inside_a_batch_means_nothing(
    spec: Spec, framework: Framework, digits: DigitSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec(recipe=LENET, precision="fp64", batch_size=BATCH)
    straight = record(framework, chosen, digits, 5)

    def turned(seed: int, epoch: int, examples: int) -> Any:
        order = draw.epoch_order(seed, epoch, examples)
        order[32:48] = order[32:48][::-1].copy()
        return order

    monkeypatch.setattr("jobs.harness.parity.epoch_order", turned)
    assert compare(straight, record(framework, chosen, digits, 5)).outcome == "agree"


def test_other_initial_weights_are_named_as_such(
    spec: Spec, framework: Framework, digits: DigitSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec(recipe=LENET, precision="fp64", batch_size=BATCH)
    straight = record(framework, chosen, digits, 2)
    monkeypatch.setattr(
        "tests.support.traces.initial_weights", lambda recipe, seed: draw.initial_weights(recipe, seed + 1)
    )
    assert compare(straight, record(framework, chosen, digits, 2)).outcome == "initial_weights_differ"
