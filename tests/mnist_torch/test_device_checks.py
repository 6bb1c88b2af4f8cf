"""The proof of ``doctor --device gpu``, on a CPU with the stand-in for CUDA's graphs: only the device differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs.errors import DeviceCheckFailed
from jobs.mnist_torch import device_checks as module
from jobs.mnist_torch.cuda_graph import StepGraph
from jobs.mnist_torch.device_checks import TIMED_EPOCHS, device_checks
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.recipes import RECIPES
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import DeviceCheck

DIGITS = small_digits(train=72, test=10)
"""A full batch and a short one."""


def check(recipe: str) -> DeviceCheck:
    return next(one for one in device_checks("cpu", DIGITS) if one.name.startswith(recipe))


@pytest.mark.parametrize("recipe", RECIPES)
def test_check_captured_steps_that_equal_eager_ones_says_so(recipe: str, cuda_stand_in: list[str]) -> None:
    text = check(recipe).run()
    assert "captured steps equal eager steps bit for bit" in text
    assert text.partition(" a step captured, ")[2].partition(",")[0].endswith("ms eager")
    assert cuda_stand_in.count("replayed") == 2 * (2 + TIMED_EPOCHS)
    assert not torch.backends.cudnn.deterministic


@pytest.mark.usefixtures("cuda_stand_in")
def test_check_captured_steps_does_not_count_what_an_epoch_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that take 5 s before their first step and 5 s after the last one, and 1 ms a step, 3 ms the first."""
    now_s = 0.0
    train_epoch: Callable[..., float] = TorchTrainer.train_epoch

    def simulated(self: TorchTrainer, order: Any, on_step: Callable[[int], None], *, epoch: int) -> float:
        def slow_step(step: int) -> None:
            nonlocal now_s
            now_s += 3e-3 if step == 1 else 1e-3
            on_step(step)

        nonlocal now_s
        now_s += 5
        loss = train_epoch(self, order, slow_step, epoch=epoch)
        now_s += 5
        return loss

    monkeypatch.setattr(TorchTrainer, "train_epoch", simulated)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now_s))
    assert "; 1.000 ms a step captured, 1.000 ms eager, " in check("lenet").run()


def _stale_row(patch: pytest.MonkeyPatch) -> None:
    """The graph reads the buffer of the first epoch: the next one is put elsewhere."""

    def start_epoch(self: StepGraph, rows: torch.Tensor, done: int = 0) -> None:
        if not hasattr(self, "_started"):
            self._rows.copy_(rows)
        self._started = True  # type: ignore[attr-defined]
        self._row.fill_(done)

    patch.setattr(StepGraph, "start_epoch", start_epoch)


def _same_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """Each replay starts from the random state of the capture, as with a generator that is not the graph's."""
    replay: Callable[[StepGraph], None] = StepGraph.replay

    def repeat(self: StepGraph) -> None:
        torch.manual_seed(0)
        replay(self)

    patch.setattr(StepGraph, "replay", repeat)


def _warm_up_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TorchTrainer, "load_state", lambda *_: None)


@pytest.mark.parametrize(
    ("recipe", "plant"),
    [("lenet", _stale_row), ("basic-cnn", _same_random_numbers), ("lenet", _warm_up_left)],
    ids=["stale rows", "random numbers", "warm-up"],
)
@pytest.mark.usefixtures("cuda_stand_in")
def test_check_captured_steps_that_differ_are_named(recipe: str, plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(DeviceCheckFailed, match="eager steps and captured steps differ after 20 steps"):
        check(recipe).run()


def test_check_device_that_does_not_repeat_its_steps_is_named(
    monkeypatch: pytest.MonkeyPatch, cuda_stand_in: list[str]
) -> None:
    step: Callable[..., None] = TorchTrainer._optimizer_step
    steps = iter(range(1000))

    def noisy(self: TorchTrainer, losses: torch.Tensor, shares: torch.Tensor) -> None:
        step(self, losses, shares * (1 + 1e-6 * next(steps)))

    monkeypatch.setattr(TorchTrainer, "_optimizer_step", noisy)
    with pytest.raises(DeviceCheckFailed, match="the same eager steps again differ"):
        check("lenet").run()
    assert "captured" not in cuda_stand_in
