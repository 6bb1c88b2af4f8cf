"""What a CUDA graph captures must not look at the host: checked on the CPU, where no graph can be captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.adapter import RunSpec
from jobs.mnist_torch.optimizer import build_optimizer
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.recipes import BASIC_CNN, LENET
from jobs.training.seeding import batches, epoch_order
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.recipes import Recipe

HOST_METHODS = ("item", "cpu", "numpy", "tolist", "__bool__", "__int__", "__float__", "__index__")
DATA_DEPENDENT = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim"}
"""What reads a value back to the host, or has a shape that depends on values."""


class _OperationLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation with its shapes, and fails on one that a graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        assert name not in DATA_DEPENDENT, f"{name} in the step"
        self.seen.append((name, [tuple(one.shape) for one in args if isinstance(one, torch.Tensor)]))
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[LENET, BASIC_CNN], ids=["lenet", "basic-cnn"])
def trainer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TorchTrainer:
    """With the parts that it has on a GPU."""
    recipe: Recipe = request.param

    def build_for_gpu(spec: RunSpec, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(spec.replace(device="gpu"), params)

    monkeypatch.setattr("jobs.mnist_torch.trainer.FastCpuDropout", torch.nn.Dropout)
    monkeypatch.setattr("jobs.mnist_torch.trainer.OneDnnLinear", torch.nn.Linear)
    monkeypatch.setattr("jobs.mnist_torch.trainer.build_optimizer", build_for_gpu)
    spec = RunSpec(
        recipe=recipe,
        protocol="matched",
        seed=1,
        epochs=1,
        batch_size=64,
        learning_rate=recipe.learning_rate,
        precision="fp32",
        execution="eager",
        input="resident",
        device="cpu",
    )
    return TorchTrainer(spec, small_digits())


def _logged_step(trainer: TorchTrainer, row: int) -> _OperationLog:
    """One step, of those of an epoch, that may not ask the host."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the step asks the host")

    indices, counts = (torch.tensor(array) for array in batches(epoch_order(1, 1, 650), 64))
    with pytest.MonkeyPatch.context() as patch:
        for name in HOST_METHODS:
            patch.setattr(torch.Tensor, name, refuse)
        with (log := _OperationLog()):
            trainer._masked_step(indices[row], counts[row])
    return log


@pytest.fixture
def warm(trainer: TorchTrainer) -> TorchTrainer:
    """The first step makes the optimizer's state, as warming up does before a capture."""
    trainer._masked_step(torch.arange(64), torch.tensor(64))
    return trainer


def test_step_short_batch_has_the_same_operations_and_no_host_call(warm: TorchTrainer) -> None:
    full, short = _logged_step(warm, 0), _logged_step(warm, -1)
    assert len(full.seen) > 30
    assert full.seen == short.seen


@pytest.mark.parametrize("fault", [torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero, bool])
def test_step_with_a_host_call_is_found(fault: Any, warm: TorchTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer_step = warm._optimizer_step
    name = getattr(fault, "__name__", "")

    def faulty(losses: torch.Tensor, mean_loss: torch.Tensor) -> None:
        optimizer_step(losses, mean_loss)
        loss = mean_loss.detach()
        # Looked up now, as a step would.
        bool(loss) if fault is bool else getattr(loss, name)()

    monkeypatch.setattr(warm, "_optimizer_step", faulty)
    with pytest.raises(AssertionError, match=r"asks the host|in the step"):
        _logged_step(warm, 0)
