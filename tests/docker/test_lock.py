"""What uv.lock holds for the images' two processors."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from tests.docker.conftest import uv
from tests.support.programs import ROOT


def locked(extra: str, processor: str) -> dict[str, list[str]]:
    """By package that an image for ``processor`` installs: the lock's wheels that fit it."""
    options = ["--locked", "--no-dev", "--no-emit-project", "--no-hashes", "--no-header", "--no-annotate"]
    command = [uv(), "export", *options, "--extra", extra]
    environment = {**os.environ, "UV_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    machine = {"sys_platform": "linux", "platform_machine": processor, "python_full_version": "3.13.0"}
    requirements = [Requirement(line) for line in done.stdout.splitlines()]
    wanted = {
        (requirement.name, str(requirement.specifier).removeprefix("=="))
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({**machine, "python_version": "3.13"})
    }
    platforms = [f"manylinux_2_{minor}_{processor}" for minor in range(28, 4, -1)] + [f"manylinux2014_{processor}"]
    fits = {*cpython_tags((3, 13), platforms=platforms), *compatible_tags((3, 13), "cp313", platforms)}
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    found: dict[str, list[str]] = {}
    for package in packages:
        if (package["name"], package.get("version")) in wanted:
            names = [wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", [])]
            found[package["name"]] = [name for name in names if parse_wheel_filename(name)[3] & fits]
    assert len(found) == len(wanted) > 10
    return found


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
@pytest.mark.parametrize("extra", ["torch", "compare"])
def test_lock_has_a_wheel_of_every_package_for_both_processors(extra: str, processor: str) -> None:
    wheels = locked(extra, processor)
    assert [name for name, names in wheels.items() if not names] == []
    if extra == "torch":
        cuda = {"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-nccl-cu13", "triton", "torch"}
        assert cuda <= wheels.keys()
        assert all(any(processor in wheel for wheel in wheels[name]) for name in cuda)


def test_lock_tensorflow_for_arm64_is_the_wheel_without_cuda() -> None:
    """Its size tells: if it is that of amd64's, mnist-tf need not be refused on arm64."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    (wheels,) = (package["wheels"] for package in packages if package["name"] == "tensorflow")
    sizes = {
        processor: [wheel["size"] for wheel in wheels if re.search(rf"cp313-manylinux\w*_{processor}", wheel["url"])]
        for processor in ("x86_64", "aarch64")
    }
    assert len(sizes["x86_64"]) == len(sizes["aarch64"]) == 1
    assert sizes["aarch64"][0] < 0.6 * sizes["x86_64"][0]
