"""The loop that runs many steps a launch must hold nothing that goes back to Python or to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from jobs.adapter import RunSpec
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.recipes import BASIC_CNN, LENET
from jobs.training.seeding import batches, epoch_order
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from jobs.recipes import Recipe

HOST = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2", "Where", "Unique", "IteratorGetNext"}
"""What calls Python, prints, has a shape that depends on values, or reads from the host's pipeline."""


@pytest.fixture(params=[LENET, BASIC_CNN], ids=["lenet", "basic-cnn"])
def trainer(request: pytest.FixtureRequest) -> TensorFlowTrainer:
    recipe: Recipe = request.param
    spec = RunSpec(
        recipe=recipe,
        protocol="matched",
        seed=1,
        epochs=1,
        batch_size=64,
        learning_rate=recipe.learning_rate,
        precision="fp32",
        execution="graph",
        input="resident",
        device="cpu",
    )
    return TensorFlowTrainer(spec, small_digits())


def _kinds(trainer: TensorFlowTrainer) -> set[str]:
    """The kinds of all operations of the loop, its bodies included."""
    indices, counts = (tf.constant(array, tf.int64) for array in batches(epoch_order(1, 1, 650), 64))
    graph: Any = trainer._run_steps.get_concrete_function(indices, counts, tf.constant(0), tf.constant(1)).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def test_train_graph_has_no_host_operation(trainer: TensorFlowTrainer) -> None:
    kinds = _kinds(trainer)
    assert {"While", "StatelessWhile"} & kinds
    assert {"Conv2D", "Conv2DBackpropFilter"} <= kinds
    assert not HOST & kinds


def test_train_graph_second_epoch_is_not_traced_again(trainer: TensorFlowTrainer) -> None:
    trainer.train_epoch(epoch_order(1, 1, 650), lambda _: None, epoch=1)
    trainer.train_epoch(epoch_order(1, 2, 650), lambda _: None, epoch=2)
    assert trainer._run_steps.experimental_get_tracing_count() == 1


def test_train_graph_step_with_a_host_call_is_found(
    trainer: TensorFlowTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixel_losses = trainer._pixel_losses

    def faulty(pixels: Any, labels: Any) -> Any:
        tf.numpy_function(lambda: None, [], [])
        return pixel_losses(pixels, labels)

    monkeypatch.setattr(trainer, "_pixel_losses", faulty)
    assert HOST & _kinds(trainer)
