"""The command ``doctor`` against the stand-in for NVIDIA's library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.cli import doctor
from jobs.cli.finding import Finding
from tests.support import fake_nvml as library

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library.build(tmp_path_factory.mktemp("nvml"))


@pytest.mark.parametrize(
    ("name", "value", "failed", "words"),
    [
        ("LOST", "1", "one of 2 GPUs", "drain the node"),
        ("FAIL", "nvmlDeviceGetName:999:1", "GPU-fake-1", "restart the container"),
        ("FAIL", "nvmlDeviceGetUUID:999:1", "Fake GPU 1", "restart the container"),
    ],
)
def test_doctor_one_failed_gpu_is_named_beside_the_others(
    name: str, value: str, failed: str, words: str, fake_nvml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sampler's process, which is started anew, finds the library.
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nvml))
    monkeypatch.setenv("FAKE_NVML_GPUS", "2")
    monkeypatch.setenv(f"FAKE_NVML_{name}", value)
    found, lost = doctor._nvml()
    assert (found.status, lost.status) == ("ok", "note")
    assert found.text == "driver 999.12.3: Fake GPU 0 (GPU-fake-0)"
    assert lost.text.startswith(f"{failed} cannot be read: ")
    assert words in lost.text


def test_doctor_notes_what_the_framework_says_of_its_device() -> None:
    device = FrameworkDevice(kind="gpu", index=0, name="Fake", note="the driver compiles first")
    versions = FrameworkVersions(name="torch", version="1", cuda_runtime=None, cudnn=None)
    framework: Any = SimpleNamespace(versions=lambda: versions, select_device=lambda _: device)
    findings = list(doctor._framework(lambda: framework, "gpu"))
    assert findings[1:] == [Finding("ok", "device", "Fake"), Finding("note", "device", "the driver compiles first")]
