"""The part of ``bench.py`` that runs in a framework's own environment; prints what it measured as JSON.

One process holds both ways to train, the default one and the idiomatic loop, and takes turns with them, so that
whatever else the machine does meets both.
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

from jobs.harness import data
from jobs.harness.draw import epoch_order, initial_weights
from jobs.harness.recipe import model_flop_per_image, products, recipe_named
from jobs.harness.trainer import RunSpec

if TYPE_CHECKING:
    from jobs.harness.data import DigitSet
    from jobs.harness.recipe import Recipe
    from jobs.harness.trainer import Framework, Trainer

BLOCKS = 5
LEAST_S = 0.1
"""A product is timed in this many blocks of at least so long."""


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of epochs over ``images`` images, each way in turns, and the matmul ceiling between the turns."""
    framework: Framework = import_module(f"{request['package']}.cli").PROGRAM.load_framework()
    ceiling = import_module(f"{request['package']}.ceiling")
    device = framework.select_device(request["device"])
    digits = _cut(data.load(request["dataset"]), request["images"])
    recipe = recipe_named(request["recipe"])
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
    theirs = dataclasses.replace(ours, input="streamed", execution="eager")
    specs = {"ours": ours, "idiomatic": theirs}
    if framework.default_execution(device.kind, "streamed") == "graph":
        # Keras' fit traces a graph unless told otherwise: that is shown too.
        specs["traced"] = dataclasses.replace(theirs, execution="graph")
    trainers = {name: framework.create_trainer(spec, digits) for name, spec in specs.items()}
    for trainer in trainers.values():
        trainer.load_weights(initial_weights(recipe, 1))
    losses: dict[str, list[float]] = {name: [] for name in trainers}
    for name, trainer in trainers.items():
        losses[name].append(_epoch(trainer, digits, 1)[1])
    draw = random.Random(1)  # noqa: S311 - an order, not a secret
    pairs = []
    for turn in range(request["pairs"]):
        order = list(trainers)
        draw.shuffle(order)
        pair: dict[str, float] = {}
        for name in order:
            pair[f"{name}_s"], loss = _epoch(trainers[name], digits, turn + 2)
            losses[name].append(loss)
        pairs.append(pair | {"ceiling_flop_per_s": ceiling.matmul_flop_per_s(ours)})
    return {
        "framework_version": framework.versions().version,
        "device": device.name,
        "images": len(digits.train_images),
        "flop_per_image": model_flop_per_image(recipe),
        "execution": {name: spec.execution for name, spec in specs.items()},
        "losses": losses,
        "pairs": pairs,
        "products": _products(ceiling, recipe) if device.kind == "cpu" else [],
    }


def _epoch(trainer: Trainer, digits: DigitSet, epoch: int) -> tuple[float, float]:
    order = epoch_order(1, epoch, len(digits.train_images))
    trainer.synchronize()
    begun_s = time.perf_counter()
    loss = trainer.train_epoch(order, lambda _: None, epoch=epoch)
    trainer.synchronize()
    return time.perf_counter() - begun_s, loss


def _products(ceiling: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Seconds of each product of a step alone, by the kernels that training uses."""
    found = []
    for place, product in enumerate(products(recipe)):
        for name, run in ceiling.product_runs(product, recipe.batch_size).items():
            if name == "input gradient" and place == 0:
                continue  # nobody asks for the images' gradient
            run(3)
            begun_s = time.perf_counter()
            run(3)
            times = max(3, math.ceil(3 * LEAST_S / (time.perf_counter() - begun_s)))
            blocks_s = []
            for _ in range(BLOCKS):
                begun_s = time.perf_counter()
                run(times)
                blocks_s.append((time.perf_counter() - begun_s) / times)
            flop = 2 * product.multiply_adds * recipe.batch_size
            found.append({"layer": product.name, "product": name, "flop": flop, "s": statistics.median(blocks_s)})
    return found


def _cut(digits: DigitSet, images: int) -> DigitSet:
    return dataclasses.replace(
        digits, train_images=digits.train_images[:images], train_labels=digits.train_labels[:images]
    )


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
