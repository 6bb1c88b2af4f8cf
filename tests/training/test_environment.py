from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import __version__
from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.io.stdio import escape_control_chars
from jobs.phases import Clock
from jobs.telemetry import monitor
from jobs.training.environment import read_environment

if TYPE_CHECKING:
    from jobs.telemetry.types import DeviceFacts

VERSIONS = FrameworkVersions(name="torch", version="2.15.0", cuda_runtime="13.2", cudnn="9.26.0")


@pytest.fixture(scope="module")
def facts() -> DeviceFacts:
    watch = monitor.watch(clock=Clock())
    try:
        return watch.attach(FrameworkDevice(kind="cpu", index=0, name="cpu"))
    finally:
        watch.stop(())


def test_environment_outside_a_container_has_no_image_and_no_pod(facts: DeviceFacts) -> None:
    environment, reasons = read_environment(VERSIONS, facts, variables={})
    assert environment.image is None
    assert environment.kubernetes is None
    assert reasons == {}
    assert environment.package_version == __version__
    assert environment.cpu.logical_cores is not None
    assert environment.cpu.affinity_cores == len(os.sched_getaffinity(0))


def test_environment_has_the_quota_of_the_cgroup(facts: DeviceFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.training.environment.cpu_quota_cores", lambda: 1.5)
    assert read_environment(VERSIONS, facts)[0].cpu.quota_cores == 1.5


def test_environment_beside_a_gpu_has_the_cpus_of_the_affinity() -> None:
    (only,) = list(os.sched_getaffinity(0))[:1]
    program = (
        "import os\n"
        f"os.sched_setaffinity(0, {{{only}}})\n"
        "from jobs.adapter import FrameworkVersions\n"
        "from jobs.telemetry.types import DeviceFacts\n"
        "from jobs.training.environment import read_environment\n"
        "versions = FrameworkVersions(name='torch', version='1', cuda_runtime='13.2', cudnn='9')\n"
        "print(read_environment(versions, DeviceFacts(driver_version='570.1'))[0].cpu.affinity_cores)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_environment_in_a_pod_is_read_from_the_variables(facts: DeviceFacts) -> None:
    variables = {
        "MNIST_JOBS_IMAGE_REF": "mnist-torch:1",
        "MNIST_JOBS_GIT_SHA": "abc",
        "MNIST_JOBS_NODE_NAME": "node-7",
        "MNIST_JOBS_POD_NAME": "mnist-torch-x",
        "MNIST_JOBS_POD_NAMESPACE": "mnist-jobs",
        "MNIST_JOBS_JOB_NAME": "mnist-torch",
        "JOB_COMPLETION_INDEX": "3",
    }
    environment, _ = read_environment(VERSIONS, facts, variables=variables)
    assert environment.image is not None
    assert environment.image.ref == "mnist-torch:1"
    assert environment.git_sha == "abc"
    assert environment.kubernetes is not None
    assert environment.kubernetes.node == "node-7"
    assert environment.kubernetes.index == 3


@pytest.mark.parametrize(
    ("index", "read"),
    [("0", 0), ("41", 41), ("²", None), ("٣", None), ("9" * 5000, None), ("-1", None), ("\udce9", None)],
)
def test_completion_index_that_is_no_number_is_null_with_its_reason(
    facts: DeviceFacts, index: str, read: int | None
) -> None:
    variables = {"MNIST_JOBS_POD_NAME": "pod", "JOB_COMPLETION_INDEX": index}
    environment, reasons = read_environment(VERSIONS, facts, variables=variables)
    assert environment.kubernetes is not None
    assert environment.kubernetes.index == read
    reason = f"JOB_COMPLETION_INDEX is '{escape_control_chars(index)[:40]}', which is no index"
    assert reasons == ({} if read is not None else {"environment.kubernetes.index": reason})


VARIABLES = ("IMAGE_REF", "IMAGE_DIGEST", "GIT_SHA", "NODE_NAME", "POD_NAME", "POD_NAMESPACE", "JOB_NAME")


@given(st.text(st.characters() | st.integers(0xDC80, 0xDCFF).map(chr), min_size=1))
def test_environment_from_any_bytes_is_text_that_a_report_can_hold(facts: DeviceFacts, value: str) -> None:
    variables = {f"MNIST_JOBS_{name}": value for name in VARIABLES}
    environment, _ = read_environment(VERSIONS, facts, variables=variables)
    # A lone surrogate, which stands for a byte that is no UTF-8, cannot be written as JSON.
    assert environment.model_dump_json().isprintable()
    assert environment.kubernetes is not None
    assert environment.kubernetes.node == escape_control_chars(value)
    assert environment.kubernetes.node == value or not value.isprintable()
