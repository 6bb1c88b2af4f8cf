"""The part of ``bench.py`` that runs in a framework's own environment; prints what it measured as JSON.

One process trains both ways in turns, so that other load on the machine affects both.
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
    from jobs.adapter import Framework, Trainer
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe

BLOCKS = 5
MIN_S = 0.1
"""A product is timed in this many blocks of at least so long."""


EPOCH_IMAGES = 60_000


def load(request: dict[str, Any]) -> Framework:
    framework: Framework = import_module(f"{request['package']}.cli").PROGRAM.load_framework()
    return framework


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of epochs over ``images`` images, each way in turns, and a large matrix product's speed in between."""
    framework = load(request)
    peak_flops = import_module(f"{request['package']}.peak_flops")
    device = framework.select_device(request["device"])
    digits = _cut(data.load(request["dataset"]), request["images"])
    recipe = RECIPES[request["recipe"]]
    ours = RunSpec.for_recipe(
        recipe,
        device=device.kind,
        execution=framework.default_execution(device.kind, "resident"),
        precision=request["precision"],
    )
    published_execution = framework.default_execution(device.kind, "streamed")
    published = ours.replace(protocol="published", input="streamed", execution=published_execution)
    trainers = {
        name: framework.create_trainer(spec, digits) for name, spec in (("ours", ours), ("published", published))
    }
    trainers["ours"].load_weights(initial_weights(recipe, 1))
    for name, trainer in trainers.items():
        _epoch(trainer, digits, 1, matched=name == "ours")
    random_order = random.Random(1)  # noqa: S311 - an order, not a secret
    pairs = []
    for turn in range(request["pairs"]):
        pair: dict[str, float] = {}
        for name in random_order.sample(list(trainers), len(trainers)):
            pair[f"{name}_s"] = _epoch(trainers[name], digits, turn + 2, matched=name == "ours")
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


def summarise(measured: dict[str, Any]) -> dict[str, Any]:
    """Seconds per epoch of 60,000 images, the median ratio within a turn, and the share of the peak."""
    pairs = measured["pairs"]
    scale = EPOCH_IMAGES / measured["images"]
    ours_s = statistics.median(pair["ours_s"] for pair in pairs)
    achieved = measured["flop_per_image"] * measured["images"] / ours_s
    ceiling = max(pair["ceiling_flop_per_s"] for pair in pairs)
    return {
        "ours_epoch_s": scale * ours_s,
        "published_epoch_s": scale * statistics.median(pair["published_s"] for pair in pairs),
        "ratio": statistics.median(pair["published_s"] / pair["ours_s"] for pair in pairs),
        "achieved_flop_per_s": achieved,
        "ceiling_flop_per_s": ceiling,
        "ceiling_share_ratio": achieved / ceiling,
    }


def _epoch(trainer: Trainer, digits: ImageDataset, epoch: int, *, matched: bool) -> float:
    """Seconds of one epoch; without ``matched`` the framework shuffles."""
    order = epoch_order(1, epoch, len(digits.train_images)) if matched else None
    trainer.synchronize()
    start_s = time.perf_counter()
    trainer.train_epoch(order, lambda _: None, epoch=epoch)
    trainer.synchronize()
    return time.perf_counter() - start_s


def _products(peak_flops: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Seconds of each product of a step alone, by the kernels that training uses."""
    results = []
    for index, product in enumerate(products(recipe)):
        for name, run in peak_flops.product_runs(product, recipe.batch_size).items():
            if name == "input gradient" and index == 0:
                continue  # training does not compute the images' gradient
            run(3)
            start_s = time.perf_counter()
            run(3)
            times = max(3, math.ceil(3 * MIN_S / (time.perf_counter() - start_s)))
            blocks_s = []
            for _ in range(BLOCKS):
                start_s = time.perf_counter()
                run(times)
                blocks_s.append((time.perf_counter() - start_s) / times)
            flop = 2 * product.multiply_adds * recipe.batch_size
            results.append({"layer": product.name, "product": name, "flop": flop, "s": statistics.median(blocks_s)})
    return results


def _cut(digits: ImageDataset, images: int) -> ImageDataset:
    return dataclasses.replace(
        digits, train_images=digits.train_images[:images], train_labels=digits.train_labels[:images]
    )


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
