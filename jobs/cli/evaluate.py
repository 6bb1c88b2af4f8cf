"""The command ``evaluate``: evaluates trained weights on a test set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs import datasets
from jobs.adapter import RunSpec
from jobs.errors import OutOfMemory
from jobs.io.memory import free_bytes, gib
from jobs.training.failure import is_out_of_memory
from jobs.weights_file import read_weights_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import DeviceChoice, Evaluation, Framework, Precision


def evaluate_file(
    path: Path, load_framework: Callable[[], Framework], *, dataset: str, device: DeviceChoice, precision: Precision
) -> Evaluation:
    """Evaluate the weights in ``path`` on all test images of ``dataset``.

    Raises:
        BadInput: the file holds no weights of a known recipe.
        DatasetRefused: the data is missing or damaged.
        NoUsableGpu: a GPU was asked for and there is none.
        OutOfMemory: the device or the host has too little.
    """
    trained = read_weights_file(path)
    data = datasets.load(dataset)
    framework = load_framework()
    kind = framework.select_device(device).kind
    spec = RunSpec.for_recipe(trained.recipe, device=kind, execution="eager", precision=precision)
    try:
        trainer = framework.create_trainer(spec, data)
        trainer.load_weights(trained.weights)
        evaluation = trainer.evaluate(data.test_images, data.test_labels)
    except Exception as error:
        if not is_out_of_memory(error, framework):
            raise
        raise OutOfMemory(
            f"out of memory in {precision} ({gib(free_bytes())} of the host's free at the time); "
            "end other work on the device, or use --device cpu"
        ) from error
    assert evaluation.examples == len(data.test_images), "every test image is evaluated"
    return evaluation
