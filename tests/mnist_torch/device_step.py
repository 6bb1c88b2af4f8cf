"""A training step on torch's ``meta`` device: shapes and no values, so that whatever needs a value fails by name."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs.mnist_torch.cuda_graph import StepGraph
from jobs.mnist_torch.trainer import TorchTrainer
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from jobs.adapter import DeviceKind, Precision, RunSpec

META: Final = torch.device("meta")
BATCH: Final = 64
NO_KERNEL: Final = {"aten::_unsafe_view", "aten::empty_like"}
"""Operations that launch nothing on a GPU: a view by another name, and an allocation."""


class StepLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation that launches a kernel, with its shapes and numbers, and what the step reads from before.

    Fails on a tensor of another device: it would be copied in each step, or be a constant in a captured graph.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, str]] = []
        self.inputs: set[int] = set()
        self._made: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func._schema.name, tree_leaves((args, kwargs or {}))
        # torch has no shape rule for it: it changes its arguments and gives nothing back.
        result = None if name == "aten::_fused_sgd_" else func(*args, **(kwargs or {}))
        for tensor in (one for one in [*given, *tree_leaves(result)] if isinstance(one, torch.Tensor)):
            assert tensor.device == META, f"{name} uses a tensor on {tensor.device} in a step on the GPU"
        before = [one.untyped_storage() for one in given if isinstance(one, torch.Tensor)]
        self.inputs |= {storage._cdata for storage in before} - self._made.keys()
        after = [one.untyped_storage() for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        # Kept, so that no later tensor gets the same address.
        self._made |= {storage._cdata: storage for storage in after if storage._cdata not in self.inputs}
        if not (func.is_view or name in NO_KERNEL or name.startswith("profiler::")):
            self.seen.append((name.removeprefix("aten::"), ", ".join(map(_text, given))))
        return result

    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.seen)


def _text(argument: object) -> str:
    return str(tuple(argument.shape)) if isinstance(argument, torch.Tensor) else repr(argument)


class _Autocast(TorchFunctionMode):
    """What ``torch.autocast`` does on a GPU to the operations that the models use; on ``meta`` it does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {torch.conv2d, functional.linear}:
            args = [one.bfloat16() if isinstance(one, torch.Tensor) else one for one in args]
        return func(*args, **(kwargs or {}))


@contextmanager
def gpu_parts_on_meta() -> Iterator[pytest.MonkeyPatch]:
    """Give the trainer the parts that it has on a GPU, on ``meta``."""

    def autocast(precision: Precision, device: DeviceKind) -> AbstractContextManager[object]:  # noqa: ARG001
        return _Autocast() if precision == "bf16" else nullcontext()

    def dropout(x: torch.Tensor, p: float, training: bool, inplace: bool) -> torch.Tensor:  # noqa: ARG001, FBT001
        # A GPU has one kernel for it, where other devices have three.
        return torch.native_dropout(x, p, training)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.mnist_torch.trainer.device_for", lambda _: META)
        patch.setattr("jobs.mnist_torch.trainer.autocast", autocast)
        patch.setattr(functional, "dropout", dropout)
        # Where torch works on all weights at once: on a GPU, and here on what stands for it.
        for module, kind in [("optimizer", "foreach_kernels"), ("optimizer", "fused_kernels"), ("adam", "capturable")]:
            name = f"_get_{kind}_supported_devices"
            patch.setattr(sys.modules[f"torch.optim.{module}"], name, lambda **_: ["cuda", "meta"])
        yield patch


def meta_trainer(spec: RunSpec) -> TorchTrainer:
    return TorchTrainer(spec, small_digits(train=BATCH + 8, test=10))


def train_step(trainer: TorchTrainer, spec: RunSpec, images: int = BATCH) -> StepLog:
    """One step as the trainer takes it in ``spec``'s execution, on a batch with ``images`` images."""
    take_step = one_step(trainer, spec, images)
    with (log := StepLog()):
        take_step()
    return log


def one_step(trainer: TorchTrainer, spec: RunSpec, images: int = BATCH) -> Callable[[], None]:
    """The step that :func:`train_step` takes, without a log."""
    row = torch.empty(BATCH + 1, dtype=torch.int32, device=META)
    dtype = torch.float64 if spec.precision == "fp64" else torch.float32
    batch = (
        torch.empty(images, 1, 28, 28, dtype=dtype, device=META),
        torch.empty(images, dtype=torch.int64, device=META),
    )
    if spec.input == "streamed":
        return lambda: trainer._whole_step(*batch)
    if spec.execution == "eager":
        return lambda: trainer._whole_step(*trainer._gather(row[:images]))
    return lambda: trainer._masked_step(row)


def stand_in_for_cuda_graphs(patch: pytest.MonkeyPatch) -> list[StepLog]:
    """Let ``StepGraph`` work on ``meta``: the captured step and each replay run the step.

    Returns their logs, those of the warm-up first. torch's optimizers see whether a capture is going on.
    """
    logs: list[StepLog] = []
    steps: list[tuple[StepGraph, Any]] = []
    capturing: list[bool] = []
    step_at_row: Any = StepGraph._step_at_row

    def run(graph: StepGraph, step: Any) -> None:
        steps[:] = [(graph, step)]
        with (log := StepLog()):
            step_at_row(graph, step)
        logs.append(log)

    class Graph:
        def replay(self) -> None:
            run(*steps[0])

    class Stream:
        def wait_stream(self, _: object) -> None:
            pass

        def is_capturing(self) -> bool:
            return bool(capturing)

    @contextmanager
    def capture(_: object) -> Iterator[None]:
        capturing.append(True)
        try:
            yield
        finally:
            capturing.clear()

    patch.setattr(StepGraph, "_step_at_row", run)
    # There are no values to put back after the warm-up.
    patch.setattr("jobs.mnist_torch.trainer.read_state", lambda _: {})
    patch.setattr("jobs.mnist_torch.trainer.write_state", lambda *_: None)
    for name, part in {"Stream": Stream, "current_stream": Stream, "stream": nullcontext, "CUDAGraph": Graph}.items():
        patch.setattr(torch.cuda, name, part)
    patch.setattr(torch.cuda, "graph", capture)
    patch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))  # noqa: ARG005
    patch.setattr(torch.accelerator, "current_stream", Stream)
    return logs
