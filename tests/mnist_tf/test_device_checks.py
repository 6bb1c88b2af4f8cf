"""The checks of ``doctor --device gpu``, run on the CPU: XLA against graph, and a fault between them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from jobs.errors import DeviceCheckFailed, NotMeasured
from jobs.mnist_tf import device_checks as module
from jobs.mnist_tf import trainer as trainer_module
from jobs.mnist_tf.device_checks import device_checks
from jobs.recipes import RECIPES
from jobs.training.seeding import initial_weights
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from jobs.adapter import DeviceCheck, RunSpec
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe


def _checks() -> dict[str, DeviceCheck]:
    return {check.name: check for check in device_checks("cpu", small_digits())}


def test_checks_are_two_for_each_recipe_and_agreement_comes_first() -> None:
    assert list(_checks()) == [
        f"{name}, {check}" for check in ("XLA and graph", "fastest execution") for name in RECIPES
    ]


def test_xla_and_graph_agree() -> None:
    assert "agree in float64" in _checks()["lenet, XLA and graph"].run()


def test_fault_in_one_execution_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second training has a bias that is wrong by 1e-6. It runs as a graph too: XLA takes long to compile."""
    trained = module._trained

    def faulty(spec: RunSpec, data: ImageDataset) -> dict[str, Any]:
        if spec.execution == "compiled":
            monkeypatch.setattr(module, "initial_weights", wrong_weights)
        return trained(spec.replace(execution="graph"), data)

    def wrong_weights(recipe: Recipe, seed: int) -> dict[str, Any]:
        weights = initial_weights(recipe, seed)
        return weights | {"conv1.bias": weights["conv1.bias"] + 1e-6}

    monkeypatch.setattr(module, "_trained", faulty)
    with pytest.raises(DeviceCheckFailed, match="graph and XLA differ"):
        _checks()["lenet, XLA and graph"].run()


@pytest.mark.parametrize("check", ["XLA and graph", "fastest execution"])
def test_check_xla_cannot_compile_is_not_measured(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA refuses an operation in Python; a graph runs it."""
    losses = trainer_module._losses

    def with_python(logits: Any, labels: Any) -> Any:
        return losses(logits, labels) + tf.stop_gradient(tf.py_function(lambda: 0.0, [], logits.dtype))

    monkeypatch.setattr(trainer_module, "_losses", with_python)
    with pytest.raises(NotMeasured, match="XLA cannot compile the step; choose --execution graph") as raised:
        _checks()[f"lenet, {check}"].run()
    assert "EagerPyFunc" in str(raised.value)


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("libdevice not found at ./libdevice.10.bc [Op:__inference__masked_steps_33]", "CUDA's libdevice"),
        ("Couldn't get ptxas version string: INTERNAL: Couldn't invoke ptxas --version", "CUDA's ptxas"),
    ],
)
def test_check_xla_without_a_part_of_cuda_names_it(message: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = module._trained

    def refused(spec: RunSpec, data: ImageDataset) -> dict[str, Any]:
        if spec.execution == "compiled":
            raise tf.errors.InternalError(None, None, message)
        return trained(spec, data)

    monkeypatch.setattr(module, "_trained", refused)
    with pytest.raises(NotMeasured, match=f"it lacks {missing}: run the image mnist-tf") as raised:
        _checks()["lenet, XLA and graph"].run()
    assert "choose --execution graph" in str(raised.value)
    assert message in str(raised.value)


def test_check_xla_out_of_memory_is_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(spec: RunSpec, _: ImageDataset) -> dict[str, Any]:
        if spec.execution == "compiled":
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return {}

    monkeypatch.setattr(module, "_trained", full)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        _checks()["lenet, XLA and graph"].run()


def test_fastest_execution_does_not_count_what_an_epoch_and_a_call_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers whose calls take 2 ms and 1 or 0.5 ms a step, and the first of each 5 s more."""
    now_s = 0.0
    make = module._trainer

    def simulated(spec: RunSpec, data: ImageDataset) -> Any:
        trainer = make(spec, data)
        step_s, once_s = 0.5e-3 if spec.execution == "compiled" else 1e-3, 5.0

        def run_steps(indices: Any, counts: Any, start: tf.Tensor, stop: tf.Tensor) -> None:  # noqa: ARG001
            nonlocal now_s, once_s
            now_s += 2e-3 + step_s * (int(stop) - int(start)) + once_s
            once_s = 0.0

        monkeypatch.setattr(trainer, "_run_steps", run_steps)
        return trainer

    monkeypatch.setattr(module, "_trainer", simulated)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now_s))
    assert _checks()["lenet, fastest execution"].run() == (
        "1.016 ms a step by graph, 0.516 ms a step by compiled; the first call took 5.0 s by graph, 5.0 s by compiled; "
        "choose --execution compiled, 1.97 times as fast"
    )


@pytest.mark.slow
def test_fastest_execution_prints_both_times_and_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMED_STEPS", 8)
    text = _checks()["lenet, fastest execution"].run()
    assert re.search(r"[\d.]+ ms a step by graph, [\d.]+ ms a step by compiled;", text)
    assert re.search(r"the first call took [\d.]+ s by graph, [\d.]+ s by compiled;", text)
    assert re.search(r"keep the default, --execution graph|choose --execution compiled, [\d.]+ times as fast", text)
