from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from jobs.recipes import BASIC_CNN, RECIPES, products
from jobs.training.seeding import initial_weights
from tests.support.programs import module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, RunSpec
    from jobs.cli.app import Program
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

TIMES = 20


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_layer_products_each_layer_are_below_the_peak(
    recipe: Recipe, program: Program, framework: Framework, spec: Callable[..., RunSpec]
) -> None:
    peak_flops = import_module(module_of(program).replace(".cli", ".peak_flops"))
    peak = framework.matmul_flop_per_s(spec())
    for product in products(recipe):
        runs = peak_flops.product_runs(product, recipe.batch_size)
        assert list(runs) == ["forward", "input gradient", "weight gradient"]
        for name, run in runs.items():
            run(1)
            begun_s = time.perf_counter()
            run(TIMES)
            taken_s = time.perf_counter() - begun_s
            # What a compiler leaves out, since nothing reads it, would be hundreds of times faster.
            assert TIMES * 2 * product.multiply_adds * recipe.batch_size / taken_s < 10 * peak, (product.name, name)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_peak_every_precision_is_measured(precision: str, framework: Framework, spec: Callable[..., RunSpec]) -> None:
    # Any processor multiplies faster than this; a wrong count of operations or products would be far outside.
    assert 1e8 < framework.matmul_flop_per_s(spec(precision=precision)) < 1e14


@pytest.mark.parametrize("protocol", ["matched", "published"])
def test_peak_measured_before_training_keeps_the_same_losses(
    protocol: str, framework: Framework, spec: Callable[..., RunSpec], digits: ImageDataset
) -> None:
    """Dropout, initial weights and shuffle draw from the framework's generator, also in the middle of training."""
    chosen = spec(recipe=BASIC_CNN, protocol=protocol)

    def train(*, measured: bool) -> dict[str, Any]:
        trainer = framework.create_trainer(chosen, digits)
        if protocol == "matched":
            trainer.load_weights(initial_weights(BASIC_CNN, 1))
        if measured:
            framework.matmul_flop_per_s(chosen)
        order = None if protocol == "published" else digits.train_labels.argsort(kind="stable").astype("int32")
        trainer.train_epoch(order, lambda _: None, epoch=1)
        return trainer.weights()

    plain, measured = train(measured=False), train(measured=True)
    assert all((plain[name] == measured[name]).all() for name in plain)
