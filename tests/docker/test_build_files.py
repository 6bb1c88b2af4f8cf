"""What can be said of the images without building them."""

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

from jobs import __version__
from tests.docker.conftest import write_sbom
from tests.support.programs import ROOT

DOCKERFILE = ROOT / "docker/Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
IMAGES = ("mnist-tf", "mnist-torch")
REASON = "TensorFlow publishes CUDA wheels only for amd64"


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
        assert (f"error: mnist-tf cannot be built for linux/{processor}: {REASON}" in done.stderr) == (code == 1)


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
    assert re.search(rf"^mnist-tf +not built for linux/arm64: {REASON}", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("way", ["image", "oci", "reproduce", "publish"])
def test_make_tensorflow_for_arm64_is_refused(checkout: Path, way: str) -> None:
    result = make(checkout, "PLATFORM=linux/arm64", goal=f"{way}-mnist-tf")
    assert result.returncode == 2
    assert f"error: mnist-tf cannot be built for linux/arm64: {REASON}" in result.stderr
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
