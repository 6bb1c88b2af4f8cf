"""A GPU's step on the ``meta`` device: no host, one device, a budget of operations, and what a CUDA graph can hold."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from jobs.adapter import RunSpec
from jobs.choices import SHARDS
from jobs.mnist_torch.rank_trainer import RankTrainer, _EpochSteps
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.ranks.group import RankGroup
from jobs.recipes import BASIC_CNN, LENET, RECIPES, Convolution
from jobs.training.seeding import epoch_order
from tests.mnist_torch import device_step, operations
from tests.mnist_torch.device_step import BATCH, META, gpu_parts_on_meta, meta_trainer, one_step, train_step
from tests.support.digits import small_digits
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import Execution, InputPath, Precision
    from jobs.choices import Reduction
    from jobs.recipes import Recipe

EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
INPUTS: tuple[InputPath, ...] = ("resident", "streamed")
EVERY_PRECISION = pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp64"])


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with gpu_parts_on_meta() as patch:
        yield patch


def gpu_spec(recipe: Recipe, execution: Execution = "graph", **changes: Any) -> RunSpec:
    return RunSpec.for_recipe(recipe, device="gpu", execution=execution).replace(**changes)


@EVERY_RECIPE
@EVERY_PRECISION
@pytest.mark.parametrize(
    ("execution", "input_path"), [("eager", "resident"), ("graph", "resident"), ("eager", "streamed")]
)
@pytest.mark.usefixtures("patch")
def test_training_step_asks_no_host_and_uses_one_device(
    recipe: Recipe, precision: Precision, execution: Execution, input_path: InputPath
) -> None:
    spec = gpu_spec(recipe, execution, precision=precision, input=input_path)
    trainer = meta_trainer(spec)
    for images in (BATCH, BATCH, 8):
        log = train_step(trainer, spec, images)
        assert len(log.seen) > 30


class HostGenerator(torch.Generator):
    """Stands for the device's generator, which ``meta`` does not have."""

    def __new__(cls, _: torch.device) -> Self:
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


@EVERY_RECIPE
@pytest.mark.parametrize("reduction", ["exact", "fast"])
@pytest.mark.parametrize("size", [1, 4])
def test_rank_step_asks_no_host_and_uses_one_device(
    recipe: Recipe, reduction: Reduction, size: int, patch: pytest.MonkeyPatch
) -> None:
    """The step of one of several ranks; a stand-in of torch takes the place of the other ranks."""
    patch.setattr(torch, "Generator", HostGenerator)
    spec = gpu_spec(recipe, "eager", reduction=reduction, batch_size=BATCH)
    dist.init_process_group("fake", store=FakeStore(), rank=size - 1, world_size=size)
    try:
        trainer = RankTrainer(spec, small_digits(train=BATCH + 8, test=10), RankGroup(rank=size - 1, size=size))
        steps = _EpochSteps(epoch_order(1, 1, BATCH + 8), spec, 1, trainer._weights[0])
        for index in range(2):
            with (log := device_step.StepLog()):
                trainer._rank_step(steps, index)
            shards = SHARDS // size if reduction == "exact" else 1
            layers = sum(isinstance(layer, Convolution) for layer in recipe.layers)
            assert log.counts()["convolution_backward"] == layers * shards
    finally:
        dist.destroy_process_group()


@EVERY_RECIPE
@EVERY_PRECISION
@pytest.mark.parametrize("input_path", ["resident", "streamed"])
def test_compiled_step_is_one_graph_and_asks_no_host(
    recipe: Recipe, precision: Precision, input_path: InputPath, patch: pytest.MonkeyPatch
) -> None:
    """Dynamo raises where it would leave the graph, as at a call that asks for a value.

    It does not compile under the log of operations. Mixed devices and values that ``meta`` lacks fail in any case.
    """
    patch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    # torch has no shape rule for it.
    patch.setattr(torch, "_fused_sgd_", lambda *_, **__: None)
    spec = gpu_spec(recipe, "compiled", precision=precision, input=input_path)
    trainer = meta_trainer(spec)
    for images in (BATCH, 8):
        one_step(trainer, spec, images)()
    assert {weight.grad.device for weight in trainer._model.parameters() if weight.grad is not None} == {META}
    torch.compiler.reset()


@EVERY_RECIPE
@EVERY_PRECISION
@pytest.mark.usefixtures("patch")
def test_evaluation_and_trace_ask_no_host(recipe: Recipe, precision: Precision) -> None:
    trainer = meta_trainer(gpu_spec(recipe, precision=precision))
    images, labels = np.zeros((10, 28, 28), np.uint8), np.zeros(10, np.uint8)
    pixels, targets = trainer._on_device(images, labels)
    loss, correct = trainer._batch_sums(pixels, targets)
    assert loss.device == correct.device == META
    assert trainer._evaluation_logits(pixels).shape == (10, 10)
    again = trainer._on_device(images, labels)
    assert all(one is other for one, other in zip(again, (pixels, targets), strict=True))


def test_operations_of_a_captured_step_keep_the_budget_and_are_those_of_the_page() -> None:
    counted = operations.count()
    for step in counted["steps"]:
        if step["precision"] == "fp32" and step["recipe"] in operations.BUDGET:
            assert step["captured"] <= operations.BUDGET[step["recipe"]], step
    stored = json.loads((ROOT / "docs/results/operations_torch.json").read_text(encoding="utf-8"))
    stored.pop("measured")
    # A recipe that is new is on the page after its operations were counted.
    measured = {step["recipe"] for step in stored["steps"]}
    counted["steps"] = [step for step in counted["steps"] if step["recipe"] in measured]
    assert counted == stored, "run make operations-torch"


def _weights_channels_last(trainer: TorchTrainer) -> set[bool]:
    """Of the convolutions' weights, which choose cuDNN's and oneDNN's layout; with one channel both are the same."""
    weights = [weight for weight in trainer._model.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
    return {weight.is_contiguous(memory_format=torch.channels_last) for weight in weights}


@EVERY_PRECISION
@pytest.mark.usefixtures("patch")
def test_weights_on_a_gpu_are_channels_last_only_for_tensor_cores(precision: Precision) -> None:
    for input_path in INPUTS:
        spec = gpu_spec(BASIC_CNN, "eager", precision=precision, input=input_path)
        expected = input_path == "resident" and precision in {"tf32", "bf16"}
        assert _weights_channels_last(meta_trainer(spec)) == {expected}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_weights_on_a_cpu_are_channels_last_unless_streamed(precision: Precision) -> None:
    for input_path in INPUTS:
        spec = RunSpec.for_recipe(LENET, device="cpu", execution="eager", precision=precision)
        trainer = TorchTrainer(spec.replace(input=input_path), small_digits(train=BATCH, test=10))
        assert _weights_channels_last(trainer) == {input_path == "resident"}


def assert_replays_repeat(logs: list[device_step.StepLog]) -> None:
    captured, *replays = logs
    for replay in replays:
        # A graph holds operations, shapes, numbers and addresses as they were when it was captured.
        changed = [pair for pair in zip(captured.seen, replay.seen, strict=True) if pair[0] != pair[1]]
        assert not changed, f"operations, shapes or numbers change: {changed}"
        assert replay.inputs == captured.inputs, "the step reads other tensors than when it was captured"


CAPTURED = pytest.mark.parametrize(
    ("recipe", "protocol"),
    [(LENET, "matched"), (LENET, "published"), (BASIC_CNN, "matched"), (BASIC_CNN, "published")],
    ids=["lenet-matched", "lenet-published", "basic-cnn-matched", "basic-cnn-published"],
)


@CAPTURED
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True:UserWarning")
def test_replayed_steps_have_the_captured_operations_numbers_and_inputs(
    recipe: Recipe, protocol: Any, patch: pytest.MonkeyPatch
) -> None:
    assert_replays_repeat(operations.captured_logs(gpu_spec(recipe, protocol=protocol), patch))


def _in_step(fault: Callable[[torch.Tensor], object]) -> Callable[[pytest.MonkeyPatch], None]:
    """``fault`` with the losses, in each step."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        make = TorchTrainer._optimizer_step

        def faulty(self: TorchTrainer, losses: torch.Tensor, shares: torch.Tensor) -> None:
            make(self, losses, shares)
            fault(losses.detach())

        patch.setattr(TorchTrainer, "_optimizer_step", faulty)

    return plant


def _number_of_each_step(patch: pytest.MonkeyPatch) -> None:
    """A scale that is computed on the host, as the CPU's form of Adam does."""
    steps = iter(range(100))
    _in_step(lambda losses: losses * next(steps))(patch)


def _new_tensor_each_step(patch: pytest.MonkeyPatch) -> None:
    counters = [torch.zeros((), device=META)]

    def count(_: torch.Tensor) -> None:
        counters.append(counters[-1] + 1)

    _in_step(count)(patch)


def _not_capturable(patch: pytest.MonkeyPatch) -> None:
    adam = partial(torch.optim.Adam, lr=0.001, capturable=False)
    patch.setattr("jobs.mnist_torch.trainer.build_optimizer", lambda _, params: adam(params))


@pytest.mark.parametrize(
    ("plant", "error", "message"),
    [
        (_in_step(lambda losses: losses.sum().item()), RuntimeError, "item"),
        (_in_step(lambda losses: bool(losses.sum() > 0)), RuntimeError, "item"),
        # torch's own error for what has no kernel on meta.
        (_in_step(lambda losses: losses.cpu()), NotImplementedError, "copy out of meta"),
        (_in_step(lambda losses: losses.nonzero()), NotImplementedError, "nonzero"),
        (_in_step(lambda losses: losses[losses > 0]), NotImplementedError, "nonzero"),
        (_in_step(lambda losses: losses.index_select(0, torch.zeros(2, dtype=torch.int64))), AssertionError, "on cpu"),
        (_in_step(lambda losses: losses + torch.rand(BATCH)), AssertionError, "on cpu"),
        (_number_of_each_step, AssertionError, "numbers change"),
        (_new_tensor_each_step, AssertionError, "other tensors"),
        (_not_capturable, AssertionError, "on cpu|capturable is False"),
    ],
    ids=["item", "bool", "cpu", "nonzero", "mask", "host index", "host random", "number", "pointer", "capturable"],
)
def test_captured_step_with_a_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], error: type[Exception], message: str, patch: pytest.MonkeyPatch
) -> None:
    plant(patch)
    with pytest.raises(error, match=message):
        assert_replays_repeat(operations.captured_logs(gpu_spec(LENET), patch))
