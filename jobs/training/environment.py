"""Everything around a run that an upgrade could change, as far as it can be read without a framework."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from jobs import __version__
from jobs.io.cgroup import cpu_quota_cores
from jobs.io.stdio import escape_control_chars
from jobs.report.schema import Cpu, Environment, FrameworkVersion, Image, Kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.adapter import FrameworkVersions
    from jobs.telemetry.types import DeviceFacts

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"


def read_environment(
    versions: FrameworkVersions, facts: DeviceFacts, *, variables: Mapping[str, str] = os.environ
) -> tuple[Environment, dict[str, str]]:
    """The environment, and the reason of every null in it by its path in the report."""
    # The file system's encoding lets any byte into a variable; the report is UTF-8.
    variables = {name: escape_control_chars(value) for name, value in variables.items()}
    image = _image(variables)
    kubernetes = _kubernetes(variables)
    environment = Environment(
        driver_version=facts.driver_version,
        cuda_driver_version=facts.cuda_driver_version,
        cuda_runtime_version=versions.cuda_runtime,
        cudnn_version=versions.cudnn,
        framework=FrameworkVersion(name=versions.name, version=versions.version),
        python_version=platform.python_version(),
        package_version=__version__,
        image=image,
        git_sha=variables.get("MNIST_JOBS_GIT_SHA") or _git_sha(Path(__file__).parents[2]),
        kubernetes=kubernetes,
        cpu=Cpu(model=_cpu_model(), logical_cores=psutil.cpu_count(), quota_cores=cpu_quota_cores()),
        memory_total_bytes=psutil.virtual_memory().total,
        os=platform.platform(),
    )
    return environment, {
        "environment.cuda_runtime_version": f"this build of {versions.name} has no CUDA",
        "environment.cudnn_version": f"this build of {versions.name} finds no cuDNN",
        "environment.image": "not run from one of the project's images",
        "environment.image.ref": "the image's build did not name it",
        "environment.image.digest": "an image cannot know its own digest; set MNIST_JOBS_IMAGE_DIGEST to record it",
        "environment.git_sha": "neither a git checkout nor set by the image's build",
        "environment.kubernetes": "not run in Kubernetes",
        "environment.kubernetes.index": _no_index(variables),
        "environment.kubernetes.node": "the manifest passes no MNIST_JOBS_NODE_NAME",
        "environment.kubernetes.namespace": "the manifest passes no MNIST_JOBS_POD_NAMESPACE",
        "environment.kubernetes.pod": "the manifest passes no MNIST_JOBS_POD_NAME",
        "environment.kubernetes.job": "the manifest passes no MNIST_JOBS_JOB_NAME",
        "environment.cpu.model": "the operating system does not name it",
        "environment.cpu.logical_cores": "the operating system does not count them",
        "environment.cpu.quota_cores": "no cgroup limit is set",
    }


def _image(variables: Mapping[str, str]) -> Image | None:
    ref, digest = variables.get("MNIST_JOBS_IMAGE_REF") or None, variables.get("MNIST_JOBS_IMAGE_DIGEST") or None
    return Image(ref=ref, digest=digest) if ref or digest else None


def _kubernetes(variables: Mapping[str, str]) -> Kubernetes | None:
    if "KUBERNETES_SERVICE_HOST" not in variables and "MNIST_JOBS_POD_NAME" not in variables:
        return None
    return Kubernetes(
        node=variables.get("MNIST_JOBS_NODE_NAME") or None,
        namespace=variables.get("MNIST_JOBS_POD_NAMESPACE") or None,
        pod=variables.get("MNIST_JOBS_POD_NAME") or None,
        job=variables.get("MNIST_JOBS_JOB_NAME") or None,
        index=_index(variables),
    )


def _index(variables: Mapping[str, str]) -> int | None:
    index = variables.get(INDEX_VARIABLE, "")
    # Kubernetes' own are below 2^31; int() would take other scripts' digits, too.
    return int(index) if re.fullmatch(r"[0-9]{1,10}", index) else None


def _no_index(variables: Mapping[str, str]) -> str:
    index = variables.get(INDEX_VARIABLE)
    return f"{INDEX_VARIABLE} is '{index[:40]}', which is no index" if index else "not an indexed Job"


def _cpu_model() -> str | None:
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
