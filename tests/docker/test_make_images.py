"""The commands of make for the images, with ``echo`` in the place of Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from jobs import __version__
from tests.docker.conftest import IMAGES, NO_CUDA_REASON
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the project as ``docker/images.mk`` reads."""
    folder = tmp_path / "checkout"
    (folder / "jobs").mkdir(parents=True)
    shutil.copy(ROOT / "jobs/__init__.py", folder / "jobs")
    return folder


def make(checkout: Path, *arguments: str, goal: str = "images") -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--no-print-directory", "-f", str(ROOT / "docker/images.mk"), goal, "DOCKER=echo"]
    command.append("PLATFORM=linux/amd64")
    # Whoever runs the tests may be make itself, which hands its variables down.
    environment = {name: os.environ[name] for name in ("PATH", "MNIST_MIRRORS") if name in os.environ}
    return subprocess.run(
        [*command, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_make_images_by_default_downloads_the_data(checkout: Path) -> None:
    result = make(checkout)
    assert result.returncode == 0, result.stderr
    builds = [line for line in result.stdout.splitlines() if line.startswith("build ")]
    assert len(builds) == 2
    for image, line in zip(IMAGES, builds, strict=True):
        assert f"--target {image} " in line
        assert "MNIST_FROM=download" in line
        assert f"--tag {image}:latest" in line


def test_make_images_data_folder_is_used(checkout: Path, tmp_path: Path) -> None:
    data = tmp_path / "data of mine"
    data.mkdir()
    for name in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte", "notes.txt"):
        (data / name).write_text("content")
        (data / name).chmod(0o400)
    result = make(checkout, f"DATA={data}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("MNIST_FROM=folder") == 4  # two commands, and echo's word for it
    staged = checkout / "build/mnist"
    assert {path.name for path in staged.iterdir()} == {"train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in staged.iterdir())


def test_make_images_folder_without_data_is_refused(checkout: Path, tmp_path: Path) -> None:
    result = make(checkout, f"DATA={tmp_path / 'nowhere'}")
    assert result.returncode != 0
    assert "holds no IDX files" in result.stderr
    assert "build " not in result.stdout


def test_make_images_for_arm64_builds_torch_and_says_why_not_tensorflow(checkout: Path) -> None:
    result = make(checkout, "PLATFORM=linux/arm64")
    assert result.returncode == 0, result.stderr
    (build,) = (line for line in result.stdout.splitlines() if line.startswith("build "))
    assert "--target mnist-torch --platform linux/arm64 " in build
    assert re.search(rf"^mnist-tf +not built for linux/arm64: {NO_CUDA_REASON}", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("way", ["image", "oci", "reproduce", "publish"])
def test_make_tensorflow_for_arm64_is_refused(checkout: Path, way: str) -> None:
    result = make(checkout, "PLATFORM=linux/arm64", goal=f"{way}-mnist-tf")
    assert result.returncode == 2
    assert f"error: mnist-tf cannot be built for linux/arm64: {NO_CUDA_REASON}" in result.stderr
    assert "build " not in result.stdout


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("processor", ["amd64", "arm64"])
def test_make_reproduce_keeps_and_prints_the_digests_and_fails_if_they_differ(
    checkout: Path, processor: str, code: int
) -> None:
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho 'the digests: sha256:1'\nexit {code}\n")
    python.chmod(0o755)
    (checkout / ".venv/.synced").touch()
    result = make(checkout, f"PLATFORM=linux/{processor}", goal="reproduce-mnist-merge")
    assert (result.returncode == 0) == (code == 0), result.stderr
    line = f"mnist-merge, linux/{processor}: the digests: sha256:1\n"
    assert line in result.stdout
    assert (checkout / f"build/reproduce/mnist-merge-{processor}.txt").read_text() == line


def test_make_oci_build_depends_on_the_commit_only(checkout: Path) -> None:
    for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a@b commit --quiet --message=x"):
        subprocess.run(["git", *command.split()], cwd=checkout, check=True)
    show = ["git", "show", "--no-patch", "--format=%ct", "HEAD"]
    epoch = subprocess.run(show, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()
    result = make(checkout, goal="oci-mnist-torch")
    assert result.returncode == 0, result.stderr
    (build,) = (line for line in result.stdout.splitlines() if line.startswith("buildx build "))
    assert f"--build-arg SOURCE_DATE_EPOCH={epoch} " in build
    assert "rewrite-timestamp=true" in build
    assert "--provenance=false" in build


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "value",
    [
        "DATA=-delete",
        "DATA=-exec",
        "MNIST_MIRRORS=-x",
        "IMAGE_TAG=-x",
        "IMAGE_TAG=a b",
        "IMAGE_BASE=--pull",
        "PLATFORM=linux/s390x",
    ],
)
def test_make_images_invalid_value_is_refused_without_a_change(checkout: Path, value: str) -> None:
    before = _files(checkout)
    result = make(checkout, value)
    assert result.returncode == 2
    assert re.search(
        rf"^error: {value} (begins with -|is no (tag|image)|is not supported)", result.stderr, re.MULTILINE
    ), result.stderr
    assert "build " not in result.stdout
    assert _files(checkout) == before


@pytest.mark.parametrize("name", ["!", "(", "$(touch ran)", "`touch ran`", "'\"; touch ran; \"'", "a\nb", "*", "$HOME"])
def test_make_images_data_folder_of_any_name_is_used(checkout: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "t10k-labels-idx1-ubyte").write_text("content")
    before = _files(checkout)
    result = make(checkout, f"DATA={folder}")
    assert result.returncode == 0, result.stderr
    assert _files(checkout) - before == {checkout / "build/mnist/t10k-labels-idx1-ubyte"}


def test_make_images_staged_folder_as_data_is_accepted(checkout: Path) -> None:
    staged = checkout / "build/mnist/t10k-labels-idx1-ubyte"
    staged.parent.mkdir(parents=True)
    staged.write_text("content")
    assert make(checkout, "DATA=build/mnist").returncode == 0
    assert staged.read_text() == "content"


@pytest.mark.parametrize(
    "mirrors",
    [
        "https://a.example/?b=1&c=2",
        "https://a.example/;touch ran",
        "https://$(touch ran)/",
        "https://$(shell touch ran)/",
    ],
)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_make_images_mirrors_are_passed_unchanged(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrors: str, way: str
) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" >> arguments\necho 1\n")
    engine.chmod(0o755)
    arguments = [f"DOCKER={engine}"]
    if way == "argument":
        arguments.append(f"MNIST_MIRRORS={mirrors}")
    else:
        monkeypatch.setenv("MNIST_MIRRORS", mirrors)
    before = _files(checkout)
    result = make(checkout, *arguments)
    assert result.returncode == 0, result.stderr
    assert (checkout / "arguments").read_text().splitlines().count(f"MNIST_MIRRORS={mirrors}") == 2
    assert _files(checkout) - before == {checkout / "arguments"}


HOSTILE = ["a; touch ran", "'; touch ran; '", '"; touch ran; "', "$(touch ran)", "$(shell touch ran)", "-x"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("way", ["argument", "environment"])
@pytest.mark.parametrize(
    ("name", "goal", "passed"),
    [
        ("PYTHON", ".venv/.synced", "--python={}"),
        ("TF_EXTRA", ".venv-tf/.synced", "--extra={}"),
        ("DEMO_EPOCHS", "demo", "--epochs={}"),
        ("PAGE", "picture", "{}"),
    ],
)
def test_make_value_is_passed_unchanged(
    tmp_path: Path, name: str, goal: str, passed: str, value: str, way: str
) -> None:
    for file in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / file, tmp_path)
    for program in ("bin/uv", ".venv/bin/python"):
        path = tmp_path / program
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" >> arguments\n")
        path.chmod(0o755)
    for folder in (".venv-tf", ".venv-torch"):
        (tmp_path / folder).mkdir()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = ["make", "-C", str(tmp_path), goal]
    if way == "argument":
        command.append(f"{name}={value}")
    else:
        environment[name] = value
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert passed.format(value) in (tmp_path / "arguments").read_text().splitlines()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["IMAGE_TAG=-x", "IMAGE_TAG=a b"])
def test_make_push_images_invalid_tag_is_refused(checkout: Path, value: str) -> None:
    result = make(checkout, "REGISTRY=localhost:5000", value, goal="push-images")
    assert result.returncode == 2
    assert f"error: {value} is no tag" in result.stderr
    assert "push " not in result.stdout


@pytest.mark.parametrize(("gigabytes", "over"), [(5.5, None), (5.7, "mnist-torch"), (6.1, "mnist-tf")])
def test_make_images_size_over_the_budget_fails(
    checkout: Path, tmp_path: Path, gigabytes: float, over: str | None
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\nif [ $2 = inspect ]; then echo {gigabytes * 1e9:.0f}; fi\n")
    engine.chmod(0o755)
    result = make(checkout, f"DOCKER={engine}")
    assert f"{gigabytes:.2f} GB of 6.0 GB" in result.stdout
    assert (result.returncode == 0) == (over is None)
    assert over is None or f"error: {over}:{__version__} is over its budget" in result.stderr
