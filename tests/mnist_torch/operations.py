"""Prints the operations of a step on a GPU as JSON, for ``scripts/operations.py``."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import torch

from jobs.adapter import RunSpec
from jobs.mnist_torch.cuda_graph import WARM_UP_STEPS
from jobs.recipes import RECIPES
from tests.mnist_torch.device_step import (
    BATCH,
    StepLog,
    gpu_parts_on_meta,
    meta_trainer,
    stand_in_for_cuda_graphs,
    train_step,
)  # fmt: skip

BUDGET: Final = {"lenet": 45, "basic-cnn": 70}
"""The most operations of a captured float32 step; each is a kernel on a GPU, at about 3 µs in a captured graph."""


def captured_logs(spec: RunSpec, patch: Any) -> list[StepLog]:
    """The captured step and two replays, the second of a short batch."""
    logs = stand_in_for_cuda_graphs(patch)
    trainer = meta_trainer(spec)
    trainer._model.train()
    trainer._train_resident(np.arange(BATCH + 8, dtype=np.int32), lambda _: None, 0)
    assert len(logs) == WARM_UP_STEPS + 1 + 2
    return logs[WARM_UP_STEPS:]


def count() -> dict[str, Any]:
    """By recipe and precision: the operations of a captured step, and the number of an eager one."""
    steps = []
    for recipe in RECIPES.values():
        for precision in ("fp32", "bf16", "fp64"):
            spec = RunSpec.for_recipe(recipe, device="gpu", execution="graph", precision=precision)
            eager = RunSpec.for_recipe(recipe, device="gpu", execution="eager", precision=precision)
            with gpu_parts_on_meta() as patch:
                trainer = meta_trainer(eager)
                eager_total = train_step(trainer, eager).counts().total()
                operations = captured_logs(spec, patch)[0].counts()
            steps.append(
                {
                    "recipe": recipe.name,
                    "precision": precision,
                    "captured": operations.total(),
                    "eager": eager_total,
                    "operations": dict(sorted(operations.items())),
                }
            )
    return {"framework_version": torch.__version__, "budget": BUDGET, "steps": steps}


if __name__ == "__main__":
    print(json.dumps(count()))  # noqa: T201 - its answer
