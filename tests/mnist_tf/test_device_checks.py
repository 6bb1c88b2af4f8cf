"""The checks of ``doctor --device gpu``, run on the CPU: XLA against graph, and a fault between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from jobs.errors import DeviceCheckFailed
from jobs.mnist_tf import device_checks as module
from jobs.mnist_tf.device_checks import device_checks
from jobs.recipes import RECIPES
from jobs.training.seeding import initial_weights
from tests.support.digits import small_digits

if TYPE_CHECKING:
    from jobs.adapter import DeviceCheck


def _checks() -> dict[str, DeviceCheck]:
    return {check.name: check for check in device_checks("cpu", small_digits())}


def test_checks_are_two_for_each_recipe() -> None:
    assert list(_checks()) == [
        f"{name}, {check}" for name in RECIPES for check in ("XLA and graph", "fastest execution")
    ]


def test_xla_and_graph_agree_and_a_fault_in_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _checks()["lenet, XLA and graph"].run
    assert "agree in float64" in run()
    load = initial_weights
    calls: list[Any] = []

    def faulty(*arguments: Any) -> Any:
        weights = load(*arguments)
        calls.append(weights)
        if len(calls) == 2:
            weights["conv1.bias"] = weights["conv1.bias"] + 1e-6
        return weights

    monkeypatch.setattr(module, "initial_weights", faulty)
    with pytest.raises(DeviceCheckFailed, match="graph and XLA differ"):
        run()


@pytest.mark.slow
def test_fastest_execution_prints_both_times_and_the_choice() -> None:
    text = _checks()["lenet, fastest execution"].run()
    assert re.search(r"[\d.]+ ms a step by graph, [\d.]+ ms a step by compiled; XLA takes [\d.]+ s once", text)
    assert re.search(r"keep the default, --execution graph|choose --execution compiled, [\d.]+ times as fast", text)
