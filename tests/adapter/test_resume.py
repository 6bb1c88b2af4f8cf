"""A trainer that goes on from another's state computes the same bits as one that was never interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs.recipes import BASIC_CNN, LENET, RECIPES
from jobs.training.seeding import epoch_order
from tests.support.programs import TORTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

    Spec = Callable[..., RunSpec]

STEPS = 11


class _Enough(Exception):
    pass


def _train(trainer: Trainer, spec: RunSpec, *, epoch: int, done: int = 0, until: int | None = None) -> float | None:
    """One epoch from step ``done`` on; ``None`` where it was left after step ``until``."""

    def on_step(step: int) -> None:
        if step == until:
            raise _Enough

    order = epoch_order(spec.seed, epoch, 650) if spec.protocol == "matched" else None
    try:
        return trainer.train_epoch(order, on_step, epoch=epoch, done=done, stop_every=until)
    except _Enough:
        return None


# `make torture` runs every combination at each of these steps.
INTERRUPTED_RUNS = [
    (recipe, protocol, input_path, left_after)
    for recipe in RECIPES.values()
    for protocol in ("matched", "published")
    for input_path in ("resident", "streamed")
    for left_after in (1, 4, STEPS)
    if TORTURE
    or (left_after == 4 and (recipe is LENET or (protocol, input_path) == ("matched", "resident")))
    or (recipe is LENET and (protocol, input_path) == ("matched", "resident"))
    # Adam's own state, dropout beside the loader, and the end of an epoch.
    or (recipe.name, protocol, input_path, left_after)
    in {
        ("basic-cnn", "published", "resident", 4),
        ("basic-cnn", "published", "streamed", STEPS),
        ("lenet", "matched", "streamed", STEPS),
    }
]


@pytest.mark.parametrize(("recipe", "protocol", "input_path", "left_after"), INTERRUPTED_RUNS)
def test_resume_at_any_step_gives_the_same_bits(
    recipe: Recipe,
    protocol: str,
    input_path: str,
    left_after: int,
    spec: Spec,
    framework: Framework,
    digits: ImageDataset,
) -> None:
    chosen = spec(recipe=recipe, protocol=protocol, input=input_path)
    whole = framework.create_trainer(chosen, digits)
    losses = [_train(whole, chosen, epoch=epoch) for epoch in (1, 2, 3)]

    left = framework.create_trainer(chosen, digits)
    assert _train(left, chosen, epoch=1) == losses[0]
    assert _train(left, chosen, epoch=2, until=left_after) is None
    state = left.state()
    # Training goes on, and evaluation comes between: neither may reach into what was taken out.
    kept = {name: array.copy() for name, array in state.items()}
    left.evaluate(digits.test_images, digits.test_labels)
    _train(left, chosen, epoch=3)
    assert all((state[name] == kept[name]).all() for name in kept)

    resumed = framework.create_trainer(chosen, digits)
    resumed.load_state(state)
    assert _train(resumed, chosen, epoch=2, done=left_after) == losses[1]
    assert _train(resumed, chosen, epoch=3) == losses[2]
    for name, weight in whole.weights().items():
        assert np.array_equal(resumed.weights()[name], weight), name
    for name, array in whole.state().items():
        assert np.array_equal(resumed.state()[name], array), name


def test_state_loaded_and_read_is_equal(spec: Spec, framework: Framework, digits: ImageDataset) -> None:
    chosen = spec(recipe=BASIC_CNN)
    first, second = (framework.create_trainer(chosen, digits) for _ in range(2))
    _train(first, chosen, epoch=1)
    state = first.state()
    second.load_state(state)
    for name, array in second.state().items():
        assert array.dtype == state[name].dtype
        assert np.array_equal(array, state[name]), name


@pytest.mark.parametrize("name", ["order", "random/cpu"])
def test_load_state_unusable_values_are_refused_without_a_change(
    name: str, spec: Spec, framework: Framework, digits: ImageDataset
) -> None:
    if framework.versions().name != "torch":
        pytest.skip("TensorFlow keeps no order and takes any numbers for its generators")
    trainer = framework.create_trainer(spec(protocol="published"), digits)
    before = trainer.state()
    state = {key: array + 1 for key, array in before.items()}
    state[name] = np.full_like(state[name], 77)
    for other in {"order", "random/cpu"} - {name}:
        state[other] = before[other]
    with pytest.raises(ValueError, match=name):
        trainer.load_state(state)
    for key, array in trainer.state().items():
        assert np.array_equal(before[key], array), key


@pytest.mark.parametrize("fault", ["missing", "another shape", "another type", "too many"])
def test_load_state_wrong_content_is_refused_without_a_change(
    fault: str, spec: Spec, framework: Framework, digits: ImageDataset
) -> None:
    chosen = spec(recipe=BASIC_CNN)
    trainer, other = (framework.create_trainer(chosen, digits) for _ in range(2))
    _train(other, chosen, epoch=1)
    before, state = trainer.state(), other.state()
    name = max(state)
    if fault == "missing":
        del state[name]
    elif fault == "another shape":
        state[name] = np.zeros((3, 5), state[name].dtype)
    elif fault == "another type":
        state[name] = state[name].astype(np.float16)
    else:
        state["more"] = np.zeros(3)
    with pytest.raises(ValueError, match="more" if fault == "too many" else name):
        trainer.load_state(state)
    for name, array in trainer.state().items():
        assert np.array_equal(before[name], array), name
