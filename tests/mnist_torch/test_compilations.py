"""torch compiles for every batch before the first step is reported, so that steady training has no compilation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs.adapter import RunSpec
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.recipes import BASIC_CNN, LENET
from jobs.training.seeding import epoch_order, initial_weights
from tests.support.compilations import EPOCHS_AND_BATCH_SIZES
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import InputPath
    from jobs.recipes import Recipe

SEED = 1


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """For each graph that Dynamo gives to its backend: the batch size that it is for; 0: any.

    The backend runs the graph as it is.
    """
    graphs: list[int] = []

    def run_as_it_is(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        is_for_any = any(isinstance(one, torch.SymInt) for one in inputs)
        labels = next(one for one in inputs if isinstance(one, torch.Tensor) and one.dtype == torch.int64)
        graphs.append(0 if is_for_any else len(labels))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=run_as_it_is))
    torch.compiler.reset()
    yield graphs
    torch.compiler.reset()


@EPOCHS_AND_BATCH_SIZES
def test_compilations_are_complete_after_the_first_step(
    input_path: InputPath, images: int, done: int, sizes: int, compiled: list[int]
) -> None:
    spec = RunSpec.for_recipe(LENET, device="cpu", execution="compiled").replace(input=input_path)
    data = small_digits(train=images, test=10)
    trainer = TorchTrainer(spec, data)
    counts: list[int] = []
    for epoch in (1, 2):
        order = epoch_order(SEED, epoch, images)
        first = done if epoch == 1 else 0
        trainer.train_epoch(order, lambda _: counts.append(len(compiled)), epoch=epoch, done=first)
        trainer.evaluate(data.test_images, data.test_labels)
        counts.append(len(compiled))
    assert counts == [sizes] * len(counts)


@pytest.mark.parametrize("recipe", [LENET, BASIC_CNN], ids=lambda recipe: recipe.name)
def test_steps_for_compilation_change_nothing(recipe: Recipe, compiled: list[int]) -> None:
    """The state is that of a trainer that had compiled for every size before, random numbers among it."""
    spec = RunSpec.for_recipe(recipe, device="cpu", execution="compiled").replace(input="streamed")
    data = small_digits(train=64 + 8, test=10)
    states = []
    for compiles_before in (True, False):
        trainer = TorchTrainer(spec, data)
        trainer.load_weights(initial_weights(recipe, SEED))
        trainer._sizes_compiled = not compiles_before
        torch.manual_seed(SEED)
        trainer.train_epoch(epoch_order(SEED, 1, 64 + 8), lambda _: None, epoch=1)
        states.append(trainer.state())
    assert compiled
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name


@pytest.mark.parametrize(("batch_size", "rest"), [(64, 8), (70, 10), (63, 24)])
def test_whole_batches_have_a_graph_of_their_own_size(batch_size: int, rest: int, compiled: list[int]) -> None:
    """A graph for any size is slower."""
    spec = RunSpec.for_recipe(LENET, device="cpu", execution="compiled")
    spec = spec.replace(input="streamed", batch_size=batch_size)
    images = 2 * batch_size + rest
    trainer = TorchTrainer(spec, small_digits(train=images, test=10))
    trainer.train_epoch(epoch_order(SEED, 1, images), lambda _: None, epoch=1)
    assert compiled == [batch_size, 0]
