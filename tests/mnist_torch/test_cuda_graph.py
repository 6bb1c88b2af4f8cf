"""Warming up, capturing and replaying a step, on a CPU: a stand-in takes the place of CUDA's streams and graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs.adapter import RunSpec
from jobs.mnist_torch.cuda_graph import WARM_UP_STEPS
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.recipes import BASIC_CNN, LENET
from jobs.training.seeding import epoch_order, initial_weights
from tests.mnist_torch.streams import Stream, stream_order
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from jobs.adapter import Execution, TrainingProtocol
    from jobs.recipes import Recipe


def make_trainer(recipe: Recipe, protocol: TrainingProtocol, execution: Execution) -> TorchTrainer:
    spec = RunSpec(
        recipe=recipe.without_dropout(),
        protocol=protocol,
        seed=1,
        epochs=1,
        batch_size=16,
        learning_rate=recipe.learning_rate,
        precision="fp64",
        execution=execution,
        input="resident",
        device="cpu",
    )
    trainer = TorchTrainer(spec, small_digits(train=72, test=10))
    trainer.load_weights(initial_weights(recipe, 1))
    return trainer


# Not the published form of basic-cnn: torch's own Adam can be captured on a GPU only.
@pytest.mark.parametrize(
    ("recipe", "protocol"),
    [(LENET, "matched"), (LENET, "published"), (BASIC_CNN, "matched")],
    ids=["lenet-matched", "lenet-published", "basic-cnn-matched"],
)
def test_graph_execution_equals_eager_steps(
    recipe: Recipe, protocol: TrainingProtocol, cuda_stand_in: list[str]
) -> None:
    """The warm-up's steps leave no trace, neither in the weights nor in the optimizer or the loss."""
    order = epoch_order(1, 1, 72)
    graph, eager = make_trainer(recipe, protocol, "graph"), make_trainer(recipe, protocol, "eager")
    losses = [trainer.train_epoch(order, lambda _: None, epoch=1) for trainer in (graph, eager)]
    assert cuda_stand_in == ["ran"] * WARM_UP_STEPS + ["captured"] + ["replayed"] * 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    expected = eager.weights()
    for name, array in graph.weights().items():
        assert np.abs(array - expected[name]).max() <= 1e-10, name


@pytest.mark.usefixtures("cuda_stand_in")
@pytest.mark.parametrize("recipe", [LENET, BASIC_CNN], ids=["lenet", "basic-cnn"])
def test_graph_streams_wait_for_each_other(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up on a side stream, reset and replays: each sees what the one before has done."""
    trainer = make_trainer(recipe, "matched", "graph")
    with stream_order(monkeypatch) as order:
        trainer.train_epoch(epoch_order(1, 1, 72), lambda _: None, epoch=1)
    # The side stream did work, and so did the current one.
    assert len(order.streams) == 2
    assert all(stream.operations > 50 for stream in order.streams)


@pytest.mark.usefixtures("cuda_stand_in")
@pytest.mark.parametrize("missed", [0, 1], ids=["before the warm-up", "after the warm-up"])
def test_graph_with_a_missed_wait_is_found(missed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Stream] = []

    def wait_stream(self: Stream, other: Stream) -> None:
        waits.append(other)
        if len(waits) != missed + 1:
            wait(self, other)

    wait = Stream.wait_stream
    monkeypatch.setattr(Stream, "wait_stream", wait_stream)
    trainer = make_trainer(LENET, "matched", "graph")
    with stream_order(monkeypatch), pytest.raises(AssertionError, match="of another stream without waiting"):
        trainer.train_epoch(epoch_order(1, 1, 72), lambda _: None, epoch=1)
    assert len(waits) == missed + 1
