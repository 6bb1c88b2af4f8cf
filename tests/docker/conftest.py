"""The engine and the images. Skipped where either is missing: ``make test-images`` builds and requires them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import uuid
from functools import cache
from typing import TYPE_CHECKING

import pytest

from jobs import __version__
from tests.support import fake_nvml as library
from tests.support.digits import small_digits, write_idx_folder
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCKER = os.environ.get("MNIST_JOBS_DOCKER", "docker")
TAG = os.environ.get("MNIST_JOBS_IMAGE_TAG", __version__)
REQUIRED = os.environ.get("MNIST_JOBS_REQUIRE_IMAGES") == "1"

IMAGES = ("mnist-tf", "mnist-torch")
NO_CUDA_REASON = "TensorFlow publishes CUDA wheels only for amd64"
EXTRAS = {"mnist-tf": "tf-cuda", "mnist-torch": "torch", "mnist-merge": "compare"}

LOCKED_DOWN = (
    *("--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"),
    "--tmpfs=/tmp",
)
TRAIN = ("train", "--recipe=lenet", "--device=cpu")
# The image's own data; a large batch makes an epoch short, and the recipe's reference is then not asked for.
MNIST_RUN = (*TRAIN, "--epochs=1", "--batch-size=500", "--dataset=mnist")
# The few images of the fixture `digits`, mounted: what is tested is not the training.
QUICK_RUN = (*TRAIN, "--epochs=2", "--dataset=/data")


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False, timeout=300)


def inspect(image: str, template: str) -> str:
    return docker("image", "inspect", "--format", template, image).stdout.strip()


def image_label(image: str, name: str) -> str:
    return inspect(image, f'{{{{index .Config.Labels "org.opencontainers.image.{name}"}}}}')


@cache
def _missing(reference: str) -> str | None:
    """Why the image cannot be run; ``None`` where it can."""
    try:
        found = docker("image", "inspect", reference)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no image {reference} ({error}); run make images"
    return None if found.returncode == 0 else f"no image {reference} ({found.stderr.strip()}); run make images"


def image_named(name: str) -> str:
    if name == "mnist-tf" and platform.machine() in {"aarch64", "arm64"}:
        pytest.skip("mnist-tf is not built for arm64: TensorFlow publishes CUDA wheels only for amd64")
    reference = f"{name}:{TAG}"
    reason = _missing(reference)
    if reason is not None:
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    return reference


@pytest.fixture(params=["mnist-tf", "mnist-torch"])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(program: str) -> str:
    return image_named(program)


@pytest.fixture
def merge_image() -> str:
    return image_named("mnist-merge")


@pytest.fixture
def container() -> Iterator[str]:
    """A name that no other container has; what bears it is removed."""
    name = f"mnist-jobs-test-{uuid.uuid4().hex[:12]}"
    yield name
    docker("rm", "--force", name)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A folder that any user may write to."""
    folder = tmp_path / "reports"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that stands in for NVIDIA's library."""
    return library.build(tmp_path_factory.mktemp("nvml")) / "libnvidia-ml.so.1"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that mounts a small data set at ``/data``."""
    folder = write_idx_folder(tmp_path_factory.mktemp("digits"), small_digits())
    folder.chmod(0o755)
    return f"--volume={folder}:/data:ro"


def uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools/bin")
    if found is None:
        pytest.skip("uv is not installed; make envs installs it into .tools")
    return found


def write_sbom(image: str, folder: Path) -> Path:
    """The image's bill of materials, as ``make sbom`` writes it."""
    path = folder / f"{image}.cdx.json"
    command = ["sh", "docker/sbom.sh", uv(), EXTRAS[image], str(path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "UV_OFFLINE": "1"}, check=True, capture_output=True)
    return path
