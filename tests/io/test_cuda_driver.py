"""What CUDA's driver library answers: the real calls, against a stand-in library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in for libcuda.so.1 cannot be built")
    folder = tmp_path_factory.mktemp("cuda")
    source = ROOT / "tests/support/cuda/fake_cuda.c"
    subprocess.run(
        [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True
    )
    return folder


def _ask(index: int, **variables: str) -> str:
    return _answer(f"pci_bus_id({index})", **variables)


def _answer(call: str, **variables: str) -> str:
    program = f"from jobs.io import cuda_driver; print(cuda_driver.{call})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_pci_bus_id_is_that_of_the_index(library: Path) -> None:
    assert _ask(0, LD_LIBRARY_PATH=str(library)) == "0000:65:00.0"
    assert _ask(1, LD_LIBRARY_PATH=str(library)) == "0000:17:00.0"


def test_pci_bus_id_of_a_missing_device_is_none(library: Path) -> None:
    assert _ask(2, LD_LIBRARY_PATH=str(library)) == "None"


def test_pci_bus_id_if_the_driver_finds_no_device_is_none(library: Path) -> None:
    assert _ask(0, LD_LIBRARY_PATH=str(library), FAKE_CUDA_INIT="100") == "None"


def test_pci_bus_id_with_a_library_that_lacks_the_call_is_none(tmp_path: Path, library: Path) -> None:
    empty = tmp_path / "empty.c"
    empty.write_text("int cuInit(unsigned int flags) { return flags; }\n", encoding="utf-8")
    assert library.exists()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", empty], check=True)
    assert _ask(0, LD_LIBRARY_PATH=str(tmp_path)) == "None"


def test_cuda_version_is_major_and_minor(library: Path) -> None:
    assert _answer("cuda_version()", LD_LIBRARY_PATH=str(library), FAKE_CUDA_VERSION="12050") == "(12, 5)"
    assert _answer("cuda_version()", LD_LIBRARY_PATH=str(library), FAKE_CUDA_VERSION="13010") == "(13, 1)"


def test_cuda_version_without_an_answer_is_none(tmp_path: Path, library: Path) -> None:
    assert _answer("cuda_version()", LD_LIBRARY_PATH=str(library)) == "None"
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    assert _answer("cuda_version()", LD_LIBRARY_PATH=str(tmp_path)) == "None"
