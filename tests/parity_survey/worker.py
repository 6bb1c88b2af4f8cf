"""Traces what standard input asks for, a JSON line each, in this environment's framework; answers a line each.

Started by :mod:`tests.parity_survey.__main__` with the processor settings in its environment.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from jobs import datasets as data
from jobs.adapter import RunSpec
from jobs.recipes import RECIPES
from jobs.training.parity_trace import record_parity
from tests.support.faults import FAULTS, adapter

if TYPE_CHECKING:
    from jobs.cli.app import Program


def main() -> None:
    name = "tensorflow" if find_spec("tensorflow") else "torch"
    program: Program = import_module(f"{adapter(name)}.cli").PROGRAM
    framework = program.load_framework()
    framework.select_device("cpu")
    faults = {fault.name: fault for fault in FAULTS}
    datasets: dict[str, data.ImageDataset] = {}
    for line in sys.stdin:
        task: dict[str, Any] = json.loads(line)
        if task["dataset"] not in datasets:
            datasets[task["dataset"]] = data.load(task["dataset"])
        digits, recipe = datasets[task["dataset"]], RECIPES[task["recipe"]]
        spec = RunSpec(
            recipe=recipe,
            protocol="matched",
            seed=task["seed"],
            epochs=1,
            batch_size=task["batch_size"],
            learning_rate=recipe.learning_rate,
            precision=task["precision"],
            execution=framework.default_execution("cpu", "resident"),
            input="resident",
            device="cpu",
        )
        with pytest.MonkeyPatch.context() as patch:
            if task["fault"] is not None:
                faults[task["fault"]].plant(name, patch)
            parity = record_parity(
                lambda traced: framework.create_trainer(traced, digits),  # noqa: B023 - used at once
                spec,
                digits,
                task["steps"],
            )
        answer = {**task, "framework": name, "dataset_sha256": digits.sha256, "parity": parity.model_dump()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
