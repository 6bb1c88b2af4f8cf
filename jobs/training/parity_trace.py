"""The parity trace: what a run's own training step computes in float64, and how far its precision rounds from that.

In float64, from the same weights and batches, both frameworks' losses and gradients must agree step by step. A
coarser precision cannot agree over many steps, since training amplifies each rounding error. It is therefore compared
with float64 one step at a time, always from a state of the float64 run, so that errors do not accumulate.

Every step goes through :meth:`~jobs.adapter.Trainer.train_epoch`, as the timed steps do, with the run's own
execution and input path. Dropout's rate is 0.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.recipes import Adam
from jobs.report.parity import Parity, ParityPath, ParityStep, RoundingState
from jobs.training.seeding import epoch_order, initial_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from jobs.adapter import RunSpec, Trainer
    from jobs.datasets import ImageDataset

    Weights = Mapping[str, NDArray[np.float64]]
    State = Mapping[str, NDArray[Any]]

MAX_ROUNDING_STATES: Final = 12
"""States from which a coarser precision is compared; enough that one outlier does not change the lower quartile."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Step ``index`` (from 0) of epoch ``epoch``, whose examples are taken in ``order``."""

    epoch: int
    index: int
    order: NDArray[np.int32]
    examples: NDArray[np.int32]


class _StepDone(Exception):
    pass


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over the arrays in order, as little-endian float64."""
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in weights.values())).hexdigest()


def record_parity(
    create_trainer: Callable[[RunSpec], Trainer], spec: RunSpec, data: ImageDataset, steps: int
) -> Parity:
    """Trace ``steps`` float64 steps of ``spec``'s training code and, for a coarser precision, its rounding errors.

    ``create_trainer`` is the adapter's. The seed's initial weights are loaded into every trainer made here.
    """
    spec = spec.without_dropout()
    initial = initial_weights(spec.recipe, spec.seed)
    double = create_trainer(spec.replace(precision="fp64"))
    double.load_weights(initial)
    # The run's trainer is created last, so that global settings such as TF32 are the run's.
    tested = double if spec.precision == "fp64" else create_trainer(spec)
    tested.load_weights(initial)
    initial_sha256 = weights_sha256(tested.weights())
    batches = list(islice(batches_with_short_one(spec, len(data.train_images)), steps))
    first_logits = double.logits(data.train_images[batches[0].examples])
    rounding_check = None if tested is double else _RoundingCheck(double, tested, data)
    compared_at = rounding_steps(steps)
    trace: list[ParityStep] = []
    rounding: list[RoundingState] = []
    for number, batch in enumerate(batches):
        if rounding_check is not None and number in compared_at:
            rounding.append(rounding_check.compare(number + 1, batch))
        trace.append(_double_step(double, batch, spec))
    return Parity(
        path=ParityPath.model_validate(vars(spec)),
        steps=trace,
        initial_weights_sha256=initial_sha256,
        first_logits=first_logits.tolist(),
        weight_norms={name: float(np.linalg.norm(array)) for name, array in double.weights().items()},
        rounding=rounding or None,
    )


def batches_with_short_one(spec: RunSpec, examples: int) -> Iterator[Batch]:
    """The batches of all epochs. Each epoch's last batch, which is usually short, comes second.

    So a trace of two steps shows a fault in the weighting of short batches.
    """
    steps = -(-examples // spec.batch_size)
    for epoch in count(1):
        order = epoch_order(spec.seed, epoch, examples)
        for index in [0, steps - 1, *range(1, steps - 1)][:steps]:
            rows = order[index * spec.batch_size : (index + 1) * spec.batch_size]
            yield Batch(epoch=epoch, index=index, order=order, examples=rows)


def rounding_steps(steps: int) -> frozenset[int]:
    """The steps (from 0) before which a coarser precision is compared: the first two, and the rest spread evenly."""
    spread = np.linspace(0, steps - 1, MAX_ROUNDING_STATES).round().astype(int)
    return frozenset({0, min(1, steps - 1), *spread.tolist()})


def take_step(trainer: Trainer, batch: Batch) -> float:
    """Take one step by the trainer's own loop; return the mean loss of the batch's examples."""

    def stop(_: int) -> None:
        raise _StepDone

    before = trainer.loss_total() if batch.index else 0.0
    with contextlib.suppress(_StepDone):
        trainer.train_epoch(batch.order, stop, epoch=batch.epoch, done=batch.index, stop_every=1)
    return (trainer.loss_total() - before) / len(batch.examples)


def _double_step(trainer: Trainer, batch: Batch, spec: RunSpec) -> ParityStep:
    """One float64 step; its gradient follows from the optimizer's running average before and after it."""
    before = trainer.gradient_average()
    loss = take_step(trainer, batch)
    after = trainer.gradient_average()
    optimizer = spec.recipe.optimizer
    decay, weight = (optimizer.beta_1, 1 - optimizer.beta_1) if isinstance(optimizer, Adam) else (optimizer.momentum, 1)
    gradients = [(after[name] - decay * before[name]) / weight for name in after]
    return ParityStep(loss=loss, grad_norm=float(np.sqrt(sum(np.sum(np.square(array)) for array in gradients))))


class _RoundingCheck:
    """Compares a coarser precision with float64, each time from one common state."""

    def __init__(self, double: Trainer, tested: Trainer, data: ImageDataset) -> None:
        self._double = double
        self._tested = tested
        self._data = data
        # From a new trainer's state a step has no gradient before it: the running average is the gradient itself.
        self._new_double = double.state()
        self._new_tested = tested.state()
        self._variable_dtype = np.dtype(tested.numerics.variable_dtype)

    def compare(self, step: int, batch: Batch) -> RoundingState:
        """Relative errors of ``batch``'s step from the state of the float64 run, which is left as it was."""
        state = self._double.state()
        rounded = _with_types_of(self._new_tested, state)
        widened = _with_types_of(self._new_double, rounded)
        weights, after = _update(self._tested, rounded, batch)
        exact_weights, exact_after = _update(self._double, widened, batch)
        logits, loss, gradient = self._gradient(self._tested, self._new_tested, weights, batch)
        exact_logits, exact_loss, exact_gradient = self._gradient(self._double, self._new_double, exact_weights, batch)
        self._double.load_state(state)
        return RoundingState(
            step=step,
            loss=relative_error(np.array(loss), np.array(exact_loss)),
            logits=relative_error(logits, exact_logits),
            gradients={name: relative_error(gradient[name], exact) for name, exact in exact_gradient.items()},
            updates={
                name: update_error(after[name], exact, exact_weights[name], self._variable_dtype)
                for name, exact in exact_after.items()
            },
        )

    def _gradient(
        self, trainer: Trainer, new_state: State, weights: Weights, batch: Batch
    ) -> tuple[NDArray[np.float64], float, Weights]:
        trainer.load_state(new_state)
        trainer.load_weights(weights)
        logits = trainer.logits(self._data.train_images[batch.examples])
        loss = take_step(trainer, batch)
        return logits, loss, trainer.gradient_average()


def _update(trainer: Trainer, state: State, batch: Batch) -> tuple[Weights, Weights]:
    """The weights before and after one step from ``state``."""
    trainer.load_state(state)
    before = trainer.weights()
    take_step(trainer, batch)
    return before, trainer.weights()


def _with_types_of(like: State, state: State) -> dict[str, NDArray[Any]]:
    """``state``'s floating-point arrays in the types of ``like``; the others, such as random states, are ``like``'s."""
    return {
        name: state[name].astype(array.dtype) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in like.items()
    }


def relative_error(computed: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """Euclidean norm of the difference over that of ``exact``: 0 where both are 0, 1 where only ``exact`` is."""
    return _ratio(computed - exact, exact)


def update_error(
    computed: NDArray[np.float64], exact: NDArray[np.float64], before: NDArray[np.float64], dtype: np.dtype[Any]
) -> float:
    """Error of the weights ``computed`` after a step, over the Euclidean norm of the step itself.

    Storing a weight as ``dtype`` rounds it by up to half a unit in its last place. That is often more than the step's
    own rounding and says nothing about it, so it is not counted.
    """
    storage = np.spacing(np.abs(computed).astype(dtype)).astype(np.float64) / 2
    return _ratio(np.maximum(np.abs(computed - exact) - storage, 0), exact - before)


def _ratio(error: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    error_norm, scale_norm = float(np.linalg.norm(error)), float(np.linalg.norm(scale))
    return error_norm / scale_norm if scale_norm > 0 else float(error_norm > 0)
