"""Deliberate faults in one framework's training code, each of which a parity trace must find.

A fault is planted into both the float64 and the timed training code, as a mistake in the program would be, unless it
is one of precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.adapter import RunSpec
from jobs.recipes import Adam, Dropout, Recipe, Sgd

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from jobs.adapter import Framework, Trainer
    from jobs.datasets import ImageDataset

LEARNING_RATE_ERROR: Final = 1e-4
PIXEL: Final = (14, 14)
PIXEL_SCALE: Final = 1.01


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault; ``plant`` puts it into the framework called ``tensorflow`` or ``torch`` until the patch is undone."""

    name: str
    plant: Callable[[str, pytest.MonkeyPatch], None]
    needs: type[Adam | Sgd | Dropout] | None = None
    """What a recipe must have for the fault to be possible."""

    def applies_to(self, recipe: Recipe) -> bool:
        parts = (recipe.optimizer, *recipe.layers)
        return self.needs is None or any(isinstance(part, self.needs) for part in parts)


def adapter(framework: str) -> str:
    return {"tensorflow": "jobs.mnist_tf", "torch": "jobs.mnist_torch"}[framework]


def _with_spec(change: Callable[[RunSpec], RunSpec]) -> Callable[[str, pytest.MonkeyPatch], None]:
    """A fault in what the framework's trainer is told."""

    def plant(framework: str, patch: pytest.MonkeyPatch) -> None:
        module: Framework = import_module(f"{adapter(framework)}.framework")
        create = module.create_trainer

        def create_with_fault(spec: RunSpec, data: ImageDataset, *group: Any) -> Trainer:
            return create(change(spec), data, *group)

        patch.setattr(module, "create_trainer", create_with_fault)

    return plant


def _with_optimizer(**changes: Any) -> Callable[[RunSpec], RunSpec]:
    def change(spec: RunSpec) -> RunSpec:
        optimizer = replace(spec.recipe.optimizer, **changes)
        return spec.replace(recipe=replace(spec.recipe, optimizer=optimizer))

    return change


def _off_learning_rate(spec: RunSpec) -> RunSpec:
    return spec.replace(learning_rate=spec.learning_rate * (1 + LEARNING_RATE_ERROR))


def _dropout_left_on(_: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunSpec, "without_dropout", lambda self: self)


def _wrong_labels(framework: str, patch: pytest.MonkeyPatch) -> None:
    module: Framework = import_module(f"{adapter(framework)}.framework")
    create = module.create_trainer

    def create_with_fault(spec: RunSpec, data: ImageDataset, *group: Any) -> Trainer:
        labels = data.train_labels.copy()
        labels[::1000] = (labels[::1000] + 1) % 10
        return create(spec, replace(data, train_labels=labels), *group)

    patch.setattr(module, "create_trainer", create_with_fault)


def _mean_over_padding(framework: str, patch: pytest.MonkeyPatch) -> None:
    module = import_module(f"{adapter(framework)}.trainer")
    batches = module.batches

    def batches_with_fault(order: Any, batch_size: int) -> Any:
        indices, counts = batches(order, batch_size)
        return indices, np.full_like(counts, batch_size)

    patch.setattr(module, "batches", batches_with_fault)


def _in_framework(name: str) -> Callable[[str, pytest.MonkeyPatch], None]:
    """A fault that only the framework's own parts can have: the function ``name`` of its test folder's ``faults``."""

    def plant(framework: str, patch: pytest.MonkeyPatch) -> None:
        folder = adapter(framework).removeprefix("jobs.")
        getattr(import_module(f"tests.{folder}.faults"), name)(patch)

    return plant


def _through_float32(number: float) -> float:
    return float(np.float32(number))


FAULTS: Final = (
    Fault(name="epsilon 1e-8 for 1e-7", plant=_with_spec(_with_optimizer(epsilon=1e-8)), needs=Adam),
    Fault(
        name="β cast through float32",
        plant=_with_spec(_with_optimizer(beta_1=_through_float32(0.9), beta_2=_through_float32(0.999))),
        needs=Adam,
    ),
    Fault(name="Nesterov's form of momentum", plant=_in_framework("nesterov_momentum"), needs=Sgd),
    Fault(name="learning rate off by 1e-4", plant=_with_spec(_off_learning_rate)),
    Fault(name="dropout left on", plant=_dropout_left_on, needs=Dropout),
    Fault(name="bias of the first layer missing", plant=_in_framework("missing_bias")),
    Fault(name="inputs truncated as TF32 does", plant=_in_framework("tf32_inputs")),
    Fault(name="bf16 where fp32 was asked", plant=_in_framework("bf16_for_fp32")),
    Fault(name="one pixel's scaling 1 % off", plant=_in_framework("pixel_scaling")),
    Fault(name="label off by one in 1 of 1,000", plant=_wrong_labels),
    Fault(name="mean over the padded batch", plant=_mean_over_padding),
)
