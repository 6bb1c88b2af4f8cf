"""The part of ``bench.py`` that runs in a framework's own environment; prints what it measured as JSON.

One process trains both ways in turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs import datasets as data
from jobs.adapter import RunSpec
from jobs.recipes import RECIPES, model_flop_per_image, products
from jobs.training.seeding import epoch_order, initial_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from jobs.adapter import Framework, Trainer
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

BLOCKS = 5
MIN_S = 0.1
"""A product is timed in this many blocks of at least so long."""


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of epochs over ``images`` images, each way in turns; between the turns a large matrix product's speed."""
    framework: Framework = import_module(f"{request['package']}.cli").PROGRAM.load_framework()
    peak_flops = import_module(f"{request['package']}.peak_flops")
    device = framework.select_device(request["device"])
    digits = _cut(data.load(request["dataset"]), request["images"])
    recipe = RECIPES[request["recipe"]]
    ours = RunSpec(
        recipe=recipe,
        protocol="matched",
        seed=1,
        epochs=1,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        precision=request["precision"],
        execution=framework.default_execution(device.kind, "resident"),
        input="resident",
        device=device.kind,
    )
    published = dataclasses.replace(
        ours,
        protocol="published",
        input="streamed",
        execution=framework.default_execution(device.kind, "streamed"),
    )
    trainers = {
        "ours": framework.create_trainer(ours, digits),
        "published": framework.create_trainer(published, digits),
    }
    trainers["ours"].load_weights(initial_weights(recipe, 1))
    orders = {"ours": _matched_order, "published": _no_order}
    for name, trainer in trainers.items():
        _epoch(trainer, orders[name], digits, 1)
    draw = random.Random(1)  # noqa: S311 - an order, not a secret
    pairs = []
    for turn in range(request["pairs"]):
        order = list(trainers)
        draw.shuffle(order)
        pair: dict[str, float] = {}
        for name in order:
            pair[f"{name}_s"] = _epoch(trainers[name], orders[name], digits, turn + 2)
        pairs.append(pair | {"ceiling_flop_per_s": framework.matmul_flop_per_s(ours)})
    return {
        "framework_version": framework.versions().version,
        "device": device.name,
        "images": len(digits.train_images),
        "flop_per_image": model_flop_per_image(recipe),
        "execution": {"ours": ours.execution, "published": published.execution},
        "intra_op_threads": trainers["ours"].numerics.intra_op_threads,
        "pairs": pairs,
        "products": _products(peak_flops, recipe) if device.kind == "cpu" else [],
    }


def _epoch(
    trainer: Trainer, draw_order: Callable[[int, int], NDArray[np.int32] | None], digits: ImageDataset, epoch: int
) -> float:
    order = draw_order(epoch, len(digits.train_images))
    trainer.synchronize()
    begun_s = time.perf_counter()
    trainer.train_epoch(order, lambda _: None, epoch=epoch)
    trainer.synchronize()
    return time.perf_counter() - begun_s


def _matched_order(epoch: int, examples: int) -> NDArray[np.int32]:
    return epoch_order(1, epoch, examples)


def _no_order(epoch: int, examples: int) -> None:  # noqa: ARG001 - the framework shuffles by itself
    return None


def _products(peak_flops: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Seconds of each product of a step alone, by the kernels that training uses."""
    found = []
    for place, product in enumerate(products(recipe)):
        for name, run in peak_flops.product_runs(product, recipe.batch_size).items():
            if name == "input gradient" and place == 0:
                continue  # nobody asks for the images' gradient
            run(3)
            begun_s = time.perf_counter()
            run(3)
            times = max(3, math.ceil(3 * MIN_S / (time.perf_counter() - begun_s)))
            blocks_s = []
            for _ in range(BLOCKS):
                begun_s = time.perf_counter()
                run(times)
                blocks_s.append((time.perf_counter() - begun_s) / times)
            flop = 2 * product.multiply_adds * recipe.batch_size
            found.append({"layer": product.name, "product": name, "flop": flop, "s": statistics.median(blocks_s)})
    return found


def _cut(digits: ImageDataset, images: int) -> ImageDataset:
    return dataclasses.replace(
        digits, train_images=digits.train_images[:images], train_labels=digits.train_labels[:images]
    )


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
