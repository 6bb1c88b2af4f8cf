"""A parity trace goes through the code that trains: the run's own loop, execution and input path."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.comparison.analysis.parity import TOLERANCE
from jobs.recipes import LENET
from jobs.training.parity_trace import MAX_ROUNDING_STATES, Batch, batches_with_short_one, record_parity, take_step
from jobs.training.seeding import epoch_order, initial_weights
from tests.support import reference
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, RunSpec, Trainer
    from jobs.datasets import ImageDataset
    from jobs.report.schema import Parity

    Spec = Callable[..., RunSpec]

BATCH = 16
STEPS = 4


@pytest.fixture(scope="module")
def few_digits() -> ImageDataset:
    return small_digits(train=72, test=10)


@pytest.fixture(scope="module")
def kept() -> list[Parity]:
    """The eager trace of the resident input, once it is recorded."""
    return []


@pytest.fixture
def eager(spec: Spec, framework: Framework, few_digits: ImageDataset, kept: list[Parity]) -> Parity:
    if not kept:
        chosen = spec(precision="fp64", execution="eager", batch_size=BATCH)
        kept.append(record(framework, chosen, few_digits)[0])
    return kept[0]


def record(framework: Framework, spec: RunSpec, digits: ImageDataset, steps: int = STEPS) -> tuple[Parity, list[Any]]:
    """A trace, and of each trainer it went through the spec and the number of calls of ``train_epoch``."""
    used: list[tuple[RunSpec, list[int]]] = []

    def create(traced: RunSpec) -> Trainer:
        trainer: Any = framework.create_trainer(traced, digits)
        calls: list[int] = []
        train_epoch = trainer.train_epoch

        def counted(*arguments: Any, **options: Any) -> float:
            calls.append(options["done"])
            return train_epoch(*arguments, **options)  # type: ignore[no-any-return]

        trainer.train_epoch = counted
        used.append((traced, calls))
        return trainer  # type: ignore[no-any-return]

    return record_parity(create, spec, digits, steps), used


@pytest.mark.parametrize(
    ("execution", "input_path"),
    [("eager", "resident"), ("eager", "streamed"), ("graph", "resident"), ("graph", "streamed"),
     ("compiled", "resident")],
)  # fmt: skip
def test_trace_any_path_records_it_and_equals_eager(
    execution: str, input_path: str, spec: Spec, framework: Framework, few_digits: ImageDataset, eager: Parity
) -> None:
    if execution == "graph" and framework.versions().name == "torch":
        pytest.skip("torch's graphs are CUDA graphs")
    chosen = spec(precision="fp64", execution=execution, input=input_path, batch_size=BATCH)
    parity, used = record(framework, chosen, few_digits)
    assert parity.path is not None
    assert parity.path.model_dump() == {
        "execution": execution, "input": input_path, "precision": "fp64", "device": "cpu",
    }  # fmt: skip
    ((traced, calls),) = used
    assert (traced.execution, traced.input) == (execution, input_path)
    # The first batch, the short one, and the others in their order.
    assert calls == [0, 4, 1, 2]
    for step, other in zip(parity.steps, eager.steps, strict=True):
        assert step.loss == pytest.approx(other.loss, rel=TOLERANCE)
        assert step.grad_norm == pytest.approx(other.grad_norm, rel=TOLERANCE)
    assert parity.weight_norms == pytest.approx(eager.weight_norms, rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trace_coarser_precision_is_recorded_beside_float64(
    precision: str, spec: Spec, framework: Framework, few_digits: ImageDataset
) -> None:
    chosen = spec(precision=precision, batch_size=BATCH)
    parity, used = record(framework, chosen, few_digits, steps=20)
    assert [traced.precision for traced, _ in used] == ["fp64", precision]
    assert {(traced.execution, traced.input) for traced, _ in used} == {(chosen.execution, chosen.input)}
    assert parity.path is not None
    assert parity.path.precision == precision
    assert parity.rounding is not None
    states = len(parity.rounding)
    assert states in {MAX_ROUNDING_STATES, MAX_ROUNDING_STATES + 1}
    # From each state one step for the update and one for the gradient, in both; float64 takes the trace's besides.
    assert [len(calls) for _, calls in used] == [20 + 2 * states, 2 * states]
    assert [found.step for found in parity.rounding][:2] == [1, 2]
    assert parity.rounding[-1].step == 20
    for found in parity.rounding:
        assert found.gradients.keys() == found.updates.keys() == parity.weight_norms.keys()
        assert all(error > 0 for error in found.gradients.values())
    alone, _ = record(framework, spec(precision="fp64", batch_size=BATCH), few_digits, steps=20)
    # Comparing on the way leaves the float64 trajectory as it was.
    assert alone.steps == parity.steps
    assert alone.rounding is None


def test_trainer_single_steps_equal_the_epoch(
    spec: Spec, matched_trainer: Callable[[RunSpec], Trainer], digits: ImageDataset
) -> None:
    chosen = spec(precision="fp64")
    order = epoch_order(1, 1, len(digits.train_images))
    rows = [order[start : start + 64] for start in range(0, len(order), 64)]
    stepped, trained = matched_trainer(chosen), matched_trainer(chosen)
    losses = [
        take_step(stepped, Batch(epoch=1, index=index, order=order, examples=examples))
        for index, examples in enumerate(rows)
    ]
    loss = trained.train_epoch(order, lambda _: None, epoch=1)
    assert np.average(losses, weights=[len(examples) for examples in rows]) == pytest.approx(loss, rel=1e-9)
    images, labels = digits.train_images[rows[0]], digits.train_labels[rows[0]]
    logits = reference.forward(LENET, initial_weights(LENET, 1), images)
    assert losses[0] == pytest.approx(reference.mean_loss(logits, labels), rel=1e-12)
    for name, array in trained.weights().items():
        assert np.abs(stepped.weights()[name] - array).max() <= 1e-12


def test_gradient_norm_equals_finite_differences_of_the_loss(
    spec: Spec, framework: Framework, matched_trainer: Callable[[RunSpec], Trainer], digits: ImageDataset
) -> None:
    """By central differences of the loss along the gradient itself, which the weights after an SGD step tell."""
    chosen = spec(precision="fp64", batch_size=BATCH)
    parity, _ = record(framework, chosen, digits, steps=1)
    (batch,) = islice(batches_with_short_one(chosen, len(digits.train_images)), 1)
    images, labels = digits.train_images[batch.examples], digits.train_labels[batch.examples]
    trainer, before = matched_trainer(chosen), initial_weights(LENET, 1)
    take_step(trainer, batch)
    # SGD's first step goes down the gradient by the learning rate.
    gradient = {name: (before[name] - after) / chosen.learning_rate for name, after in trainer.weights().items()}
    norm = float(np.sqrt(sum(np.sum(np.square(array)) for array in gradient.values())))
    assert parity.steps[0].grad_norm == pytest.approx(norm, rel=1e-9)

    def loss_at(distance: float) -> float:
        weights = {name: before[name] + distance * array / norm for name, array in gradient.items()}
        return reference.mean_loss(reference.forward(LENET, weights, images), labels)

    assert (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5 == pytest.approx(norm, rel=1e-4)
