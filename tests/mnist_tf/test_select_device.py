"""How TensorFlow's GPU is chosen, on a machine without one: what TensorFlow reports of it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib  # type: ignore[attr-defined]

from jobs.mnist_tf import framework
from jobs.mnist_tf.model import build_model
from jobs.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def second_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A machine whose usable GPU is CUDA's second. Gives the devices that were made visible."""
    visible: list[Any] = []
    gpu = SimpleNamespace(name="/physical_device:GPU:1", device_type="GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [gpu])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, _: visible.extend(devices))
    details = {"device_name": "NVIDIA T4", "compute_capability": (7, 5)}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    yield visible
    tf.config.set_soft_device_placement(True)


@pytest.mark.usefixtures("second_gpu")
def test_gpu_is_described_without_opening_any(monkeypatch: pytest.MonkeyPatch) -> None:
    def opens_every_gpu() -> list[Any]:
        raise AssertionError("list_local_devices takes memory of every GPU")

    monkeypatch.setattr(device_lib, "list_local_devices", opens_every_gpu)
    monkeypatch.setattr(framework, "pci_bus_id", {1: "0000:65:00.0"}.get)
    device = framework.select_device("gpu")
    assert (device.kind, device.name, device.compute_capability) == ("gpu", "NVIDIA T4", "7.5")
    assert device.pci_bus_id == "0000:65:00.0"


def test_gpu_turns_soft_placement_off(second_gpu: list[Any]) -> None:
    assert tf.config.get_soft_device_placement()
    framework.select_device("gpu")
    assert len(second_gpu) == 1
    assert not tf.config.get_soft_device_placement()


def test_cpu_leaves_soft_placement_on() -> None:
    framework.select_device("cpu")
    assert tf.config.get_soft_device_placement()


def test_default_execution_of_fit_on_a_gpu_is_the_one_that_keras_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [build_model(recipe, "fp32", None) for recipe in RECIPES.values()]
    on_cpu = [model._resolve_auto_jit_compile() for model in models]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [SimpleNamespace(device_type="GPU")])
    on_gpu = [model._resolve_auto_jit_compile() for model in models]
    assert (any(on_cpu), all(on_gpu)) == (False, True)
    assert framework.default_execution("cpu", "streamed") == "graph"
    assert framework.default_execution("gpu", "streamed") == "compiled"
    assert framework.default_execution("gpu", "resident") == "graph"
