"""What can be said of the Dockerfile and its locked tools without building an image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
import zipfile
from pathlib import Path

import pytest

from tests.docker.conftest import IMAGES, NO_CUDA_REASON, write_sbom
from tests.support.programs import ROOT

DOCKERFILE = ROOT / "docker/Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def stages() -> dict[str, str]:
    """By stage: its text."""
    parts = re.split(r"^FROM (?:--platform=\S+ )?\S+ AS (\S+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_dockerfile_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; it comes with the lint group")
    command = [hadolint, "--config", str(ROOT / "docker/.hadolint.yaml"), str(DOCKERFILE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_dockerfile_has_no_syntax_line() -> None:
    assert not re.search(r"^#\s*syntax\s*=", TEXT, flags=re.MULTILINE | re.IGNORECASE)


def test_dockerfile_targets_are_the_console_scripts_and_merge() -> None:
    targets = {name: stage for name, stage in stages().items() if re.search(r"^ENTRYPOINT", stage, flags=re.MULTILINE)}
    assert tuple(targets) == (*IMAGES, "mnist-merge")
    assert set(IMAGES) == set(PROJECT["scripts"])
    assert re.findall(r"^USER (\S+)$", targets["mnist-merge"], flags=re.MULTILINE) == ["65532:65532"]


@pytest.mark.parametrize("image", IMAGES)
def test_entry_point_is_the_console_script_as_process_1(image: str) -> None:
    stage = stages()[image]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", stage, flags=re.MULTILINE)
    assert json.loads(entry) == [image]
    assert re.findall(r"^USER (\S+)$", stage, flags=re.MULTILINE) == ["65532:65532"]


def test_images_request_no_gpu() -> None:
    """Where NVIDIA's runtime is the default, ``all`` would give every GPU to a pod that asked for none."""
    assert "NVIDIA_VISIBLE_DEVICES" not in TEXT
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in stages()["runtime"]


def test_stages_start_from_the_base_or_each_other() -> None:
    sources = re.findall(r"^FROM (?:--platform=\S+ )?(\S+) AS", TEXT, flags=re.MULTILINE)
    own = {*stages(), "${BASE}", "mnist-from-${MNIST_FROM}", "builder-${TARGETARCH}"}
    assert set(sources) <= own
    assert "ARG BASE=python:3.13-slim-trixie\n" in TEXT


def test_environments_use_the_lock_and_existing_extras() -> None:
    syncs = re.findall(r"uv sync.*", TEXT)
    assert len(syncs) == 5
    assert all("--locked" in sync and "--no-dev" in sync for sync in syncs)
    extras = re.findall(r"--extra ([a-z-]+)", TEXT)
    assert sorted(extras) == ["compare", "tf-cuda", "torch"]
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


def test_sbom_lists_match_the_extras() -> None:
    """One list for the images' own, one for `make sbom`: both name what the image is made from."""
    (pairs,) = re.findall(r"for image in ([^;]+);", TEXT)
    makefile = (ROOT / "docker/images.mk").read_text("utf-8")
    extras = dict(pair.split(":") for pair in pairs.split())
    assert extras == dict(re.findall(r"^extra_(\S+) := (\S+)$", makefile, re.MULTILINE))
    for image, stage in stages().items():
        if "ENTRYPOINT" in stage:
            (venv,) = re.findall(r"--from=([a-z]+)-dependencies", stage)
            assert f"{image}.cdx.json" in stage
            assert extras[image].removesuffix("-cuda") == venv


def test_sbom_of_the_same_lock_has_the_same_bytes(tmp_path: Path) -> None:
    bills = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        bills.append(write_sbom("mnist-torch", tmp_path / run).read_bytes())
    assert bills[0] == bills[1]
    bill = json.loads(bills[0])
    assert "timestamp" not in bill["metadata"]
    serial = bill["serialNumber"].removeprefix("urn:uuid:")
    assert (uuid.UUID(serial).version, uuid.UUID(serial).variant) == (5, uuid.RFC_4122)
    other = json.loads(write_sbom("mnist-merge", tmp_path).read_text("utf-8"))
    assert other["serialNumber"] != bill["serialNumber"]


def test_dockerfile_refuses_tensorflow_on_arm64_before_it_installs() -> None:
    first, *_ = re.findall(r"^RUN (.*?[^\\])$", stages()["tf-dependencies"], flags=re.MULTILINE | re.DOTALL)
    for processor, code in (("amd64", 0), ("arm64", 1)):
        done = subprocess.run(
            ["sh", "-c", first], env={"TARGETARCH": processor}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert (f"error: mnist-tf cannot be built for linux/{processor}: {NO_CUDA_REASON}" in done.stderr) == (
            code == 1
        )


def test_dockerfile_installs_for_the_images_processor() -> None:
    for name in ("tf", "torch", "compare"):
        assert '--python-platform "$IMAGE_PLATFORM"' in stages()[f"{name}-dependencies"]
    assert "IMAGE_PLATFORM=aarch64-unknown-linux-gnu" in stages()["builder-arm64"]
    assert not re.search("x86_64|aarch64|amd64|arm64", (ROOT / "docker/slim.sh").read_text("utf-8"))


def test_build_context_is_an_allowlist() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    mounted = set(re.findall(r"type=bind,source=([^,\s]+)", TEXT))
    assert allowed == copied | mounted


def test_dockerfile_has_no_proxy_certificate_or_index() -> None:
    assert not re.search(r"_CERT|CA_BUNDLE|_PROXY|INDEX_URL", TEXT, flags=re.IGNORECASE)


def test_uv_is_pinned_by_version_and_hash() -> None:
    (pin,) = re.findall(r"^[^#\s-].*", (ROOT / "docker/uv.txt").read_text("utf-8"), re.MULTILINE)
    assert re.fullmatch(r"uv==[0-9.]+ \\", pin)
    for file in ("Makefile", "docker/Dockerfile"):
        installs = [line for line in (ROOT / file).read_text("utf-8").splitlines() if "pip install" in line]
        assert len(installs) == 1
        assert "--require-hashes" in installs[0]


@pytest.mark.slow
def test_uv_with_another_hash_is_refused(tmp_path: Path) -> None:
    for name in ("Makefile", "docker/uv.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (version,) = re.findall(r"^uv==(\S+)", (ROOT / "docker/uv.txt").read_text("utf-8"), re.MULTILINE)
    # A stranger's wheel of that name and version, where pip looks for it.
    wheel = tmp_path / f"wheels/uv-{version}-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"uv-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}
    command = ["make", "-C", str(tmp_path), ".tools/bin/uv"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "DO NOT MATCH THE HASHES" in result.stderr
