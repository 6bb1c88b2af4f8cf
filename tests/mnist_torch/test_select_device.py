"""How torch's GPU is chosen, on a machine without one: what torch reports of it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from jobs.errors import NoUsableGpu
from jobs.mnist_torch import framework

if TYPE_CHECKING:
    from collections.abc import Callable

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Give this machine a GPU of a compute capability."""

    def give(major: int, minor: int) -> None:
        properties = SimpleNamespace(
            name="NVIDIA Fake", uuid="fake", pci_domain_id=0, pci_bus_id=0x65, pci_device_id=0, major=major,
            minor=minor, total_memory=2**34,
        )  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ARCHITECTURES)

    return give


def test_gpu_with_a_binary_is_described(gpu: Callable[[int, int], None]) -> None:
    gpu(8, 9)
    device = framework.select_device("gpu")
    assert (device.kind, device.name, device.compute_capability, device.note) == ("gpu", "NVIDIA Fake", "8.9", None)
    assert (device.uuid, device.pci_bus_id) == ("GPU-fake", "00000000:65:00.0")
    assert framework.select_device("auto") == device


def test_gpu_without_code_is_refused_and_auto_takes_the_cpu(gpu: Callable[[int, int], None]) -> None:
    gpu(7, 0)
    with pytest.raises(NoUsableGpu, match=r"NVIDIA Fake \(compute capability 7\.0\), only for sm_75, .*, sm_120; use"):
        framework.select_device("gpu")
    assert framework.select_device("auto").kind == "cpu"


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")
def test_no_usable_gpu_gives_the_first_line_of_torchs_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\nSecond line")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", too_old)
    with pytest.raises(NoUsableGpu) as refused:
        framework.select_device("gpu")
    assert "finds no usable GPU (The NVIDIA driver on your system is too old (found version 12020).); " in str(
        refused.value
    )
    assert "Second line" not in str(refused.value)
