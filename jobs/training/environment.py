"""Reads a run's environment: versions, container image, Kubernetes, CPU and memory."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from jobs import __version__
from jobs.io.cgroup import cpu_quota_cores
from jobs.io.cpus import affinity_cores
from jobs.io.stdio import escape_control_chars
from jobs.io.whole_number import whole_number
from jobs.report.configuration import Cpu, Environment, FrameworkVersion, Image, Kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.adapter import FrameworkVersions
    from jobs.telemetry.types import DeviceFacts

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"


def read_environment(
    versions: FrameworkVersions, facts: DeviceFacts, *, variables: Mapping[str, str] = os.environ
) -> tuple[Environment, dict[str, str]]:
    """The environment, and by report path the reason of a null in it that differs from the usual one."""
    variables = _printable(variables)
    index = variables.get(INDEX_VARIABLE)
    image = Image(
        ref=variables.get("MNIST_JOBS_IMAGE_REF") or None, digest=variables.get("MNIST_JOBS_IMAGE_DIGEST") or None
    )
    environment = Environment(
        driver_version=facts.driver_version,
        cuda_driver_version=facts.cuda_driver_version,
        cuda_runtime_version=versions.cuda_runtime,
        cudnn_version=versions.cudnn,
        framework=FrameworkVersion(name=versions.name, version=versions.version),
        python_version=platform.python_version(),
        package_version=__version__,
        image=image if image.ref or image.digest else None,
        git_sha=variables.get("MNIST_JOBS_GIT_SHA") or _git_sha(Path(__file__).parents[2]),
        kubernetes=read_kubernetes(variables),
        cpu=Cpu(
            model=cpu_model(),
            logical_cores=psutil.cpu_count(),
            quota_cores=cpu_quota_cores(),
            affinity_cores=affinity_cores(),
        ),
        memory_total_bytes=psutil.virtual_memory().total,
        os=platform.platform(),
    )
    if not index or whole_number(index) is not None:
        return environment, {}
    return environment, {
        "environment.kubernetes.index": f"{INDEX_VARIABLE} is '{index[:40]}', which is no index",
    }


def read_kubernetes(variables: Mapping[str, str]) -> Kubernetes | None:
    """Where the pod runs; ``None`` outside of Kubernetes."""
    if "KUBERNETES_SERVICE_HOST" not in variables and "MNIST_JOBS_POD_NAME" not in variables:
        return None
    variables = _printable(variables)
    index = variables.get(INDEX_VARIABLE, "")
    return Kubernetes(
        node=variables.get("MNIST_JOBS_NODE_NAME") or None,
        namespace=variables.get("MNIST_JOBS_POD_NAMESPACE") or None,
        pod=variables.get("MNIST_JOBS_POD_NAME") or None,
        job=variables.get("MNIST_JOBS_JOB_NAME") or None,
        index=whole_number(index),
    )


def _printable(variables: Mapping[str, str]) -> dict[str, str]:
    """A variable may hold any byte; the report is UTF-8."""
    return {name: escape_control_chars(value) for name, value in variables.items()}


def cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _git_sha(folder: Path) -> str | None:
    if not (folder / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()
