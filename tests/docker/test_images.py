"""What is in the images, and what is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import jobs
from jobs import __version__
from tests.docker.conftest import REQUIRED, docker, image_label, image_named, inspect, write_sbom

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SIZE_BUDGET_BYTES = {"mnist-tf": 6.0e9, "mnist-torch": 5.6e9, "mnist-merge": 0.6e9}

each_image = pytest.mark.parametrize("name", SIZE_BUDGET_BYTES)


def python(image: str, code: str, *options: str) -> list[str]:
    """The lines that ``code`` prints inside the image."""
    done = docker("run", "--rm", "--network=none", *options, "--entrypoint=python", image, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@each_image
def test_image_labels_name_title_version_and_licence(name: str) -> None:
    image = image_named(name)
    assert image_label(image, "title") == name
    assert image_label(image, "version") == __version__
    assert image_label(image, "licenses") == "Apache-2.0"
    assert image_label(image, "base.name")
    assert inspect(image, "{{.Config.User}}") == "65532:65532"


@each_image
def test_image_size_is_within_the_budget(name: str) -> None:
    assert int(inspect(image_named(name), "{{.Size}}")) <= SIZE_BUDGET_BYTES[name]


@each_image
def test_image_holds_the_code_of_this_checkout(name: str) -> None:
    if not REQUIRED:
        pytest.skip("only make test-images knows that the image was built just now")
    code = (
        "import hashlib, pathlib, jobs; top = pathlib.Path(jobs.__file__).parent\n"
        "for p in sorted(top.rglob('*.py')): print(p.relative_to(top), hashlib.sha256(p.read_bytes()).hexdigest())"
    )
    top = Path(jobs.__file__).parent
    here = [
        f"{path.relative_to(top)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(top.rglob("*.py"))
    ]
    assert python(image_named(name), code) == here


@each_image
def test_image_sbom_equals_the_installed_packages(name: str) -> None:
    image = image_named(name)
    shown = docker("run", "--rm", "--entrypoint=cat", image, f"/usr/share/sbom/{name}.cdx.json")
    bill: dict[str, Any] = json.loads(shown.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    named = {(entry["name"], entry["version"]): entry for entry in bill["components"]}
    code = (
        "import importlib.metadata, re\n"
        "for d in importlib.metadata.distributions(path=__import__('site').getsitepackages()[:1]):\n"
        "    print(re.sub('[-_.]+', '-', d.name).lower(), d.version)"
    )
    installed = {tuple(line.split()) for line in python(image, code)} - {("mnist-jobs", __version__)}
    assert installed
    assert installed <= named.keys()
    # The lock speaks for other platforms and Python versions too; what is not here says for whom it is.
    elsewhere = named.keys() - installed
    assert all(
        any(prop["name"] == "uv:package:marker" for prop in named[key].get("properties", [])) for key in elsewhere
    )


@each_image
def test_image_sbom_equals_what_make_sbom_writes(name: str, tmp_path: Path) -> None:
    shown = docker("run", "--rm", "--entrypoint=cat", image_named(name), f"/usr/share/sbom/{name}.cdx.json")
    assert shown.stdout == write_sbom(name, tmp_path).read_text("utf-8")


@each_image
def test_image_files_hold_no_time_of_the_build(name: str) -> None:
    """A .pyc file names its source by an unchecked hash (PEP 552), and uv's file with the time is gone."""
    code = (
        "import pathlib\n"
        "files = [p for p in pathlib.Path('/opt/venv').rglob('*.pyc')]\n"
        "print(len(files) > 100)\n"
        "for p in files:\n    if p.read_bytes()[4:8] != b'\\1\\0\\0\\0': print(p)\n"
        "for p in pathlib.Path('/opt/venv').rglob('uv_cache.json'): print(p)"
    )
    assert python(image_named(name), code) == ["True"]


@each_image
def test_image_caches_are_below_tmp_and_writable(name: str) -> None:
    variables = dict(line.split("=", 1) for line in json.loads(inspect(image_named(name), "{{json .Config.Env}}")))
    caches = {key: value for key, value in variables.items() if "CACHE" in key or key == "HOME"}
    assert {"HOME", "XDG_CACHE_HOME"} <= caches.keys()
    if name != "mnist-merge":
        assert {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH"} <= caches.keys()
    for value in (*caches.values(), variables["TMPDIR"]):
        assert Path(value).is_relative_to("/tmp")  # noqa: S108 - a path in a container
    code = f"import os\nfor path in {sorted(caches.values())}: os.makedirs(path, exist_ok=True); open(path + '/x', 'w')"
    for user in ("65532:65532", "12345:12345"):
        python(image_named(name), code, f"--user={user}")


def test_image_requests_compute_and_utility_but_no_gpu(image: str) -> None:
    variables = json.loads(inspect(image, "{{json .Config.Env}}"))
    assert [variable for variable in variables if "NVIDIA" in variable] == [
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    ]


@each_image
def test_image_has_no_compiler(name: str) -> None:
    find = "for tool in cc gcc g++ clang nvcc uv; do command -v $tool; done; true"
    done = docker("run", "--rm", "--entrypoint=sh", image_named(name), "-c", find)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_has_one_cuda_runtime(image: str) -> None:
    code = "import pathlib\nfor p in pathlib.Path('/').glob('[!ps]*/**/libcudart.so*'): print(p)"
    libraries = python(image, code)
    assert len({Path(path).parent for path in libraries if not Path(path).is_symlink()}) == 1
    assert all("/site-packages/nvidia/" in path for path in libraries)


def test_image_contains_mnist_decompressed(image: str) -> None:
    """Compressed files would differ by who compressed them."""
    names = python(image, "import os\nfor name in sorted(os.listdir('/opt/mnist')): print(name)")
    assert len(names) == 4
    assert all(name.endswith("-ubyte") for name in names)
    done = docker("run", "--rm", "--network=none", image, "dataset", "--dataset=mnist")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mnist  sha256 ")
