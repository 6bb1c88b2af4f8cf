"""The part of ``bench_telemetry.py`` that runs in a framework's own environment; prints its pairs as JSON."""

from __future__ import annotations

import json
import random
import sys
import time
from importlib import import_module
from typing import Any

from jobs import datasets
from jobs.adapter import RunSpec
from jobs.phases import Clock, Span
from jobs.recipes import RECIPES
from jobs.telemetry import monitor
from jobs.training.seeding import epoch_order, initial_weights


def measure(module: str, recipe_name: str, dataset: str, pairs: int) -> list[dict[str, Any]]:
    """Train pairs of epochs with one trainer, one of each pair with telemetry; seconds and the sampler's counts."""
    framework = import_module(module).PROGRAM.load_framework()
    device = framework.select_device("cpu")
    recipe = RECIPES[recipe_name]
    spec = RunSpec.for_recipe(recipe, device="cpu", execution=framework.default_execution("cpu", "resident"))
    images = datasets.load(dataset)
    trainer = framework.create_trainer(spec, images)
    trainer.load_weights(initial_weights(recipe, 1))
    epochs = iter(range(1, 2 * pairs + 2))

    def train_one() -> float:
        epoch = next(epochs)
        order = epoch_order(1, epoch, len(images.train_images))
        start_s = time.perf_counter()
        trainer.train_epoch(order, lambda _: None, epoch=epoch)
        trainer.synchronize()
        return time.perf_counter() - start_s

    def train_watched() -> dict[str, Any]:
        clock = Clock()
        run_monitor = monitor.watch(clock=clock)
        run_monitor.attach(device)
        run_monitor.mark()
        start_s = clock()
        seconds = train_one()
        run_monitor.mark()
        observation = run_monitor.stop([Span(name="train", epoch=1, start_s=start_s, end_s=clock())])
        sampler = observation.telemetry.sampler
        rates = {name: rate.model_dump() for name, rate in sampler.rates.items()}
        assert sampler.mode == "process"
        return {"seconds": seconds, "cpu_s": sampler.cpu_s, "watched_s": clock(), "rates": rates}

    train_one()
    random_order = random.Random(1)  # noqa: S311 - an order, not a secret
    results = []
    for _ in range(pairs):
        if random_order.random() < 0.5:
            off, on = train_one(), train_watched()
        else:
            on, off = train_watched(), train_one()
        results.append({"off_s": off, "on": on, "ratio": on["seconds"] / off})
    return results


if __name__ == "__main__":
    module, recipe, dataset, pairs = sys.argv[1:]
    print(json.dumps(measure(module, recipe, dataset, int(pairs))))
