"""The same tests for both adapters: run once in each environment, against the framework that is there."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.digits import small_digits, write_idx_folder
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.cli.app import Program
    from jobs.datasets import ImageDataset


@pytest.fixture(scope="session")
def program() -> Program:
    if find_spec("tensorflow") is not None:
        from jobs.mnist_tf.cli import PROGRAM
    else:
        from jobs.mnist_torch.cli import PROGRAM
    return PROGRAM


@pytest.fixture(scope="session")
def framework(program: Program) -> Framework:
    framework = program.load_framework()
    framework.select_device("cpu")
    return framework


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    return small_digits()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    return write_idx_folder(tmp_path_factory.mktemp("data") / "bars", digits)


@pytest.fixture
def spec(framework: Framework) -> Callable[..., RunSpec]:
    """A spec of lenet on the CPU, of which a test changes what it is about."""
    from jobs.adapter import RunSpec
    from jobs.recipes import LENET

    def make(**changes: Any) -> RunSpec:
        recipe = changes.get("recipe", LENET)
        defaults: dict[str, Any] = {
            "recipe": recipe,
            "protocol": "matched",
            "seed": 1,
            "epochs": 1,
            "batch_size": 64,
            "learning_rate": recipe.learning_rate,
            "precision": "fp32",
            "execution": framework.default_execution("cpu", changes.get("input", "resident")),
            "input": "resident",
            "device": "cpu",
        }
        return RunSpec(**{**defaults, **changes})

    return make


@pytest.fixture
def matched_trainer(framework: Framework, digits: ImageDataset) -> Callable[[RunSpec], Trainer]:
    """A trainer with the weights that the matched protocol draws."""
    from jobs.training.seeding import initial_weights

    def make(spec: RunSpec) -> Trainer:
        trainer = framework.create_trainer(spec, digits)
        trainer.load_weights(initial_weights(spec.recipe, spec.seed))
        return trainer

    return make


@pytest.fixture
def run_process(folder: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in ``tmp_path`` on the small data set."""

    def run_command(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*command, "--dataset", str(folder)],
            **({"cwd": tmp_path, "env": environment, "capture_output": True, "text": True} | options),
            check=False,
        )

    return run_command
