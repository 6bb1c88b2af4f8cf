from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.errors import BadInput, NoUsableGpu
from jobs.recipes import BASIC_CNN, RECIPES
from jobs.training.seeding import epoch_order, initial_weights
from tests.support import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

    Spec = Callable[..., RunSpec]
    Make = Callable[[RunSpec], Trainer]


EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def train_one_epoch(trainer: Trainer, spec: RunSpec, digits: ImageDataset) -> tuple[float, list[int]]:
    steps: list[int] = []
    order = epoch_order(spec.seed, 1, len(digits.train_images)) if spec.protocol == "matched" else None
    return trainer.train_epoch(order, steps.append, epoch=1), steps


@EVERY_RECIPE
def test_parameter_count_equals_the_recipe(recipe: Recipe, spec: Spec, matched_trainer: Make) -> None:
    assert matched_trainer(spec(recipe=recipe)).parameter_count == recipe.parameter_count


@EVERY_RECIPE
def test_weights_loaded_and_read_are_equal(recipe: Recipe, spec: Spec, matched_trainer: Make) -> None:
    drawn = initial_weights(recipe, 1)
    for precision, dtype in (("fp64", np.float64), ("fp32", np.float32)):
        weights = matched_trainer(spec(recipe=recipe, precision=precision)).weights()
        assert list(weights) == list(drawn)
        for name, array in drawn.items():
            assert (weights[name] == array.astype(dtype)).all()


@EVERY_RECIPE
@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-12), ("fp32", 1e-5)])
def test_logits_equal_the_numpy_reference(
    recipe: Recipe, precision: str, tolerance: float, spec: Spec, matched_trainer: Make, digits: ImageDataset
) -> None:
    images = digits.test_images[:16]
    logits = matched_trainer(spec(recipe=recipe, precision=precision)).logits(images)
    expected = reference.forward(recipe, initial_weights(recipe, 1), images)
    assert np.abs(logits - expected).max() <= tolerance


@EVERY_RECIPE
def test_evaluation_counts_every_image(recipe: Recipe, spec: Spec, matched_trainer: Make, digits: ImageDataset) -> None:
    trainer = matched_trainer(spec(recipe=recipe))
    # More images than one evaluation batch holds, and not a multiple of it.
    images, labels = np.tile(digits.test_images, (5, 1, 1))[:1203], np.tile(digits.test_labels, 5)[:1203]
    evaluation = trainer.evaluate(images, labels)
    logits = trainer.logits(images)
    assert evaluation.examples == 1203
    assert evaluation.correct == int((logits.argmax(axis=1) == labels).sum())
    assert evaluation.loss == pytest.approx(reference.mean_loss(logits, labels), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["matched", "published"])
@pytest.mark.parametrize("input_path", ["resident", "streamed"])
def test_train_epoch_takes_every_step_and_lowers_the_loss(
    protocol: str, input_path: str, spec: Spec, framework: Framework, digits: ImageDataset
) -> None:
    chosen = spec(recipe=BASIC_CNN.without_dropout(), protocol=protocol, input=input_path)
    trainer = framework.create_trainer(chosen, digits)
    first, steps = train_one_epoch(trainer, chosen, digits)
    assert steps[0] == 1
    assert steps == sorted(set(steps))
    assert steps[-1] == 11
    second, _ = train_one_epoch(trainer, chosen, digits)
    assert second < first
    assert trainer.evaluate(digits.test_images, digits.test_labels).accuracy_ratio > 0.8


@pytest.fixture(scope="module")
def slow_epoch() -> list[tuple[float, dict[str, Any]]]:
    """Loss and weights of an epoch on the slow path, once it is trained."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("execution", "input_path"),
    [("eager", "resident"), ("graph", "resident"), ("compiled", "resident"), ("graph", "streamed")],
)
def test_train_epoch_every_path_equals_eager_steps(
    execution: str,
    input_path: str,
    spec: Spec,
    matched_trainer: Make,
    framework: Framework,
    digits: ImageDataset,
    slow_epoch: list[tuple[float, dict[str, Any]]],
) -> None:
    """A whole epoch of basic-cnn; tests/adapter/test_parity.py compares lenet's paths step by step."""
    if execution == "graph" and framework.versions().name == "torch":
        pytest.skip("torch's graphs are CUDA graphs")
    recipe = BASIC_CNN.without_dropout()
    if not slow_epoch:
        slow = spec(recipe=recipe, precision="fp64", execution="eager", input="streamed")
        trainer = matched_trainer(slow)
        slow_epoch.append((train_one_epoch(trainer, slow, digits)[0], trainer.weights()))
    fast = spec(recipe=recipe, precision="fp64", execution=execution, input=input_path)
    trainer = matched_trainer(fast)
    loss, _ = train_one_epoch(trainer, fast, digits)
    expected, expected_weights = slow_epoch[0]
    assert loss == pytest.approx(expected, rel=1e-12)
    weights = trainer.weights()
    for name, array in expected_weights.items():
        assert np.abs(weights[name] - array).max() <= 1e-10


def test_dropout_is_on_in_training_and_off_in_evaluation(
    spec: Spec, matched_trainer: Make, digits: ImageDataset
) -> None:
    trainer = matched_trainer(spec(recipe=BASIC_CNN))
    images = digits.test_images[:8]
    assert (trainer.logits(images) == trainer.logits(images)).all()
    with_dropout, _ = train_one_epoch(trainer, spec(recipe=BASIC_CNN), digits)
    still = spec(recipe=BASIC_CNN.without_dropout())
    without, _ = train_one_epoch(matched_trainer(still), still, digits)
    assert with_dropout > without


@pytest.mark.parametrize("protocol", ["matched", "published"])
def test_train_epoch_same_seed_gives_the_same_loss(
    protocol: str, spec: Spec, framework: Framework, digits: ImageDataset
) -> None:
    losses = []
    for seed in (1, 1, 2):
        chosen = spec(protocol=protocol, seed=seed)
        trainer = framework.create_trainer(chosen, digits)
        losses.append(train_one_epoch(trainer, chosen, digits)[0])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize(
    ("precision", "compute", "variable"),
    [("fp32", "float32", "float32"), ("fp64", "float64", "float64"), ("bf16", "bfloat16", "float32")],
)
def test_precision_set_is_read_back(
    precision: str, compute: str, variable: str, spec: Spec, matched_trainer: Make, digits: ImageDataset
) -> None:
    chosen = spec(precision=precision)
    trainer = matched_trainer(chosen)
    numerics = trainer.numerics
    assert (numerics.compute_dtype, numerics.variable_dtype) == (compute, variable)
    assert not numerics.tf32_matmul
    assert not numerics.tf32_convolution
    loss, _ = train_one_epoch(trainer, chosen, digits)
    assert np.isfinite(loss)


def test_logits_bf16_have_its_rounding_error(spec: Spec, matched_trainer: Make, digits: ImageDataset) -> None:
    images = digits.test_images[:16]
    error = np.abs(
        matched_trainer(spec(precision="bf16")).logits(images) - matched_trainer(spec(precision="fp64")).logits(images)
    ).max()
    assert 1e-5 < error < 0.05


def test_create_trainer_unsupported_precision_is_refused(
    spec: Spec, framework: Framework, digits: ImageDataset
) -> None:
    with pytest.raises(BadInput, match="only NVIDIA GPUs have it"):
        framework.create_trainer(spec(precision="tf32"), digits)


def test_select_device_missing_gpu_is_refused(framework: Framework) -> None:
    try:
        device = framework.select_device("auto")
    finally:
        framework.select_device("cpu")
    if device.kind == "gpu":
        pytest.skip("a GPU is usable here")
    with pytest.raises(NoUsableGpu, match=r"--device gpu: .* use --device cpu"):
        framework.select_device("gpu")


def test_train_epoch_exception_from_the_hook_ends_it(spec: Spec, matched_trainer: Make, digits: ImageDataset) -> None:
    class Stop(Exception):
        pass

    seen: list[int] = []

    def stop_at_the_third(done: int) -> None:
        seen.append(done)
        if done >= 3:
            raise Stop

    for input_path in ("resident", "streamed"):
        chosen = spec(input=input_path)
        trainer = matched_trainer(chosen)
        seen.clear()
        with pytest.raises(Stop):
            trainer.train_epoch(epoch_order(1, 1, len(digits.train_images)), stop_at_the_third, epoch=1)
        assert seen[-1] < 11


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["graph", "compiled"])
def test_train_epoch_every_execution_equals_eager_in_float32(
    execution: str, spec: Spec, matched_trainer: Make, framework: Framework, digits: ImageDataset
) -> None:
    """The layers that float32 has to itself, such as oneDNN's, are not those of float64."""
    if execution == "graph" and framework.versions().name == "torch":
        pytest.skip("torch's graphs are CUDA graphs")
    eager, fast = spec(execution="eager"), spec(execution=execution)
    expected, _ = train_one_epoch(matched_trainer(eager), eager, digits)
    loss, _ = train_one_epoch(matched_trainer(fast), fast, digits)
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@EVERY_RECIPE
def test_gradient_average_before_the_first_step_is_zero_and_changes_nothing(
    recipe: Recipe, spec: Spec, matched_trainer: Make, digits: ImageDataset
) -> None:
    chosen = spec(recipe=recipe.without_dropout())
    read, unread = matched_trainer(chosen), matched_trainer(chosen)
    assert not any(array.any() for array in read.gradient_average().values())
    # The loss alone: how often the hook is called depends on the time that steps take.
    assert train_one_epoch(read, chosen, digits)[0] == train_one_epoch(unread, chosen, digits)[0]
    assert any(array.any() for array in read.gradient_average().values())
