"""The part of ``bench_shared_cpu.py`` in a framework's own environment; prints the median epoch's images a second."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from importlib import import_module

from jobs import datasets as data
from jobs.adapter import RunSpec
from jobs.recipes import LENET
from jobs.training.seeding import epoch_order, initial_weights


def main(package: str, images: int, epochs: int) -> float:
    framework = import_module(f"{package}.cli").PROGRAM.load_framework()
    framework.select_device("cpu")
    digits = data.load("synthetic")
    digits = replace(digits, train_images=digits.train_images[:images], train_labels=digits.train_labels[:images])
    spec = RunSpec(
        recipe=LENET,
        protocol="matched",
        seed=1,
        epochs=epochs,
        batch_size=LENET.batch_size,
        learning_rate=LENET.learning_rate,
        precision="fp32",
        execution=framework.default_execution("cpu", "resident"),
        input="resident",
        device="cpu",
    )
    trainer = framework.create_trainer(spec, digits)
    trainer.load_weights(initial_weights(LENET, 1))
    times_s = []
    for epoch in range(epochs + 1):
        begun_s = time.perf_counter()
        trainer.train_epoch(epoch_order(1, epoch + 1, images), lambda _: None, epoch=epoch + 1)
        times_s.append(time.perf_counter() - begun_s)
    # The first epoch traces graphs and fills caches.
    return images / statistics.median(times_s[1:])


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
