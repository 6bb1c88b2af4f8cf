from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from jobs.recipes import BASIC_CNN, LENET, products
from tests.support.programs import module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec
    from jobs.cli.app import Program
    from jobs.recipes import Recipe

TIMES = 20


@pytest.mark.parametrize("recipe", [LENET, BASIC_CNN], ids=["lenet", "basic-cnn"])
def test_no_product_is_skipped_and_none_beats_the_machine(
    recipe: Recipe, program: Program, spec: Callable[..., RunSpec]
) -> None:
    ceiling = import_module(module_of(program).replace(".cli", ".ceiling"))
    limit = ceiling.matmul_flop_per_s(spec())
    for product in products(recipe):
        runs = ceiling.product_runs(product, recipe.batch_size)
        assert list(runs) == ["forward", "input gradient", "weight gradient"]
        for name, run in runs.items():
            run(1)
            begun_s = time.perf_counter()
            run(TIMES)
            taken_s = time.perf_counter() - begun_s
            # What a compiler leaves out, since nobody reads it, would be hundreds of times faster.
            assert TIMES * 2 * product.multiply_adds * recipe.batch_size / taken_s < 10 * limit, (product.name, name)
