"""How TensorFlow's GPU is chosen, on a machine without one: what TensorFlow reports of it is given."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib  # type: ignore[attr-defined]

from jobs import adapter_common
from jobs.errors import NoUsableGpu
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


def give_capability(patch: pytest.MonkeyPatch, *capability: int, architectures: list[str] | None) -> None:
    """What TensorFlow reports of the GPU and of its own build, which lists nothing where it has no CUDA."""
    build = {} if architectures is None else {"cuda_compute_capabilities": architectures, "cuda_version": "12.5.1"}
    patch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    details = {"device_name": "NVIDIA Fake", "compute_capability": capability}
    patch.setattr(tf.config.experimental, "get_device_details", lambda _: details)


ARCHITECTURES = ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"]


def test_gpu_without_code_is_refused_and_auto_takes_the_cpu(
    second_gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_capability(monkeypatch, 5, 2, architectures=ARCHITECTURES)
    with pytest.raises(
        NoUsableGpu, match=r"NVIDIA Fake \(compute capability 5\.2\), only for compute_90, sm_60, .*, sm_90; use"
    ):
        framework.select_device("gpu")
    assert framework.select_device("auto").kind == "cpu"
    assert not second_gpu, "the GPU is hidden"
    assert tf.config.get_soft_device_placement()


def test_gpu_with_ptx_alone_needs_the_driver_of_its_toolkit(
    second_gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_capability(monkeypatch, 10, 0, architectures=ARCHITECTURES)
    monkeypatch.setattr(adapter_common, "cuda_version", lambda: (12, 2))
    with pytest.raises(NoUsableGpu, match=r"PTX of CUDA 12\.5\.1 for NVIDIA Fake .* supports CUDA up to 12\.2"):
        framework.select_device("gpu")
    monkeypatch.setattr(adapter_common, "cuda_version", lambda: (12, 5))
    device = framework.select_device("auto")
    assert device.kind == "gpu"
    assert device.note is not None
    assert "compiles the kernels at the first start" in device.note
    assert len(second_gpu) == 1


@pytest.mark.usefixtures("second_gpu")
@pytest.mark.parametrize(
    ("capability", "architectures"), [((7, 5), ARCHITECTURES), ((9, 0), ARCHITECTURES), ((5, 2), None)]
)
def test_gpu_with_a_binary_or_a_build_that_lists_nothing_is_taken(
    capability: tuple[int, int], architectures: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_capability(monkeypatch, *capability, architectures=architectures)
    device = framework.select_device("gpu")
    assert (device.kind, device.note) == ("gpu", None)


@pytest.mark.usefixtures("second_gpu")
def test_gpu_that_the_installed_cudnn_does_not_support_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    give_capability(monkeypatch, 7, 0, architectures=ARCHITECTURES)
    assert framework.select_device("gpu").kind == "gpu"
    monkeypatch.setattr(metadata, "version", lambda _: "9.28.0.42")
    with pytest.raises(NoUsableGpu, match=r"cuDNN 9\.28\.0\.42"):
        framework.select_device("gpu")


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
