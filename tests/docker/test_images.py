"""Both images, run as operators run them. Skipped where there is no engine or no image: ``make test-images``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import jobs
from jobs import __version__, report
from jobs.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DOCKER = os.environ.get("MNIST_JOBS_DOCKER", "docker")
TAG = os.environ.get("MNIST_JOBS_IMAGE_TAG", __version__)
REQUIRED = os.environ.get("MNIST_JOBS_REQUIRE_IMAGES") == "1"

LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
# A large batch makes an epoch short; the recipe's reference is then not asked for.
QUICK_RUN = ("train", "--recipe=lenet", "--epochs=1", "--batch-size=500", "--dataset=mnist", "--device=cpu")

SIZE_BUDGET_BYTES = {"mnist-tf": 6.0e9, "mnist-torch": 5.6e9}


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False, timeout=300)


def inspect(image: str, template: str) -> str:
    return docker("image", "inspect", "--format", template, image).stdout.strip()


@pytest.fixture(params=["mnist-tf", "mnist-torch"])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(program: str) -> str:
    reference = f"{program}:{TAG}"
    try:
        found = docker("image", "inspect", reference)
        reason = found.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        found, reason = None, str(error)
    if found is None or found.returncode != 0:
        text = f"no image {reference} ({reason}); run make images"
        pytest.fail(text) if REQUIRED else pytest.skip(text)
    return reference


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


def only_report(folder: Path) -> report.Report:
    (path,) = folder.iterdir()
    return report.read(path)


# Unknown to /etc/passwd, nobody's group, and root's group as OpenShift gives it.
@pytest.mark.parametrize("user", ["12345:12345", "65534:65534", "1000650000:0"])
def test_a_locked_down_run_writes_a_report(image: str, program: str, reports: Path, user: str) -> None:
    options = ("--rm", *LOCKED_DOWN, "--tmpfs=/tmp", f"--user={user}", f"--volume={reports}:/reports")
    result = docker("run", *options, image, *QUICK_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    written = only_report(reports)
    assert written.status == "completed"
    assert written.config.dataset.name == "mnist"
    assert written.config.framework == {"mnist-tf": "tensorflow", "mnist-torch": "torch"}[program]
    assert written.environment.image is not None
    assert written.environment.image.ref == image
    assert written.environment.git_sha == (inspect(image, LABEL.format("revision")) or None)
    # The same report is in what the container printed, as `kubectl logs` would show it.
    lines = [report.from_line(line, origin="log") for line in result.stdout.splitlines()]
    assert [line.run_id for line in lines if line] == [written.run_id]


def test_the_default_user_needs_no_mount(image: str, container: str, tmp_path: Path) -> None:
    result = docker("run", "--name", container, "--network=none", image, *QUICK_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert docker("cp", f"{container}:/reports", str(tmp_path)).returncode == 0
    assert only_report(tmp_path / "reports").status == "completed"


@pytest.mark.parametrize("user", ["65532:65532", "12345:12345"])
def test_caches_are_writable_without_a_mount(image: str, user: str) -> None:
    code = "import os, pathlib; p = pathlib.Path(os.environ['XDG_CACHE_HOME'], 'x'); p.mkdir(parents=True)"
    result = docker("run", "--rm", f"--user={user}", "--entrypoint=python", image, "-c", code)
    assert (result.returncode, result.stderr) == (0, "")


def test_no_gpu_is_an_error_where_one_is_asked_for(image: str) -> None:
    result = docker("run", "--rm", "--env=NVIDIA_VISIBLE_DEVICES=void", image, "train", "--device=gpu", "--epochs=1")
    assert result.returncode == ExitCode.NO_USABLE_GPU, result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_nowhere_to_write_is_told_before_training(image: str) -> None:
    result = docker("run", "--rm", "--read-only", "--tmpfs=/tmp", image, *QUICK_RUN)
    assert result.returncode == ExitCode.REPORT_NOT_WRITABLE, result.stdout + result.stderr
    assert "/reports" in result.stderr


def test_sigterm_reaches_the_program(image: str, container: str, reports: Path) -> None:
    train = ("train", "--recipe=basic-cnn", "--epochs=50", "--device=cpu")
    started = docker("run", "--detach", "--name", container, f"--volume={reports}:/reports", image, *train)
    assert started.returncode == 0, started.stderr
    wait_for_training(container)
    assert docker("stop", "--time=60", container).returncode == 0
    log = docker("logs", container)
    assert inspect_container(container, "{{.State.ExitCode}}") == str(int(ExitCode.INTERRUPTED)), log.stderr
    assert only_report(reports).status == "interrupted"


def wait_for_training(container: str) -> None:
    """Until the interpreter has loaded its framework and installed its handlers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = docker("logs", container)
        if log.stdout or log.stderr:
            time.sleep(5)
            return
        time.sleep(0.5)
    pytest.fail(f"{container} printed nothing")


def inspect_container(name: str, template: str) -> str:
    return docker("inspect", "--format", template, name).stdout.strip()


def test_no_arguments_show_the_help(image: str, program: str) -> None:
    result = docker("run", "--rm", image)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: {program} ")


LABEL = '{{{{index .Config.Labels "org.opencontainers.image.{}"}}}}'


def test_labels_say_what_it_is(image: str, program: str) -> None:
    assert inspect(image, LABEL.format("title")) == program
    assert inspect(image, LABEL.format("version")) == __version__
    assert inspect(image, "{{.Config.User}}") == "65532:65532"


def test_it_holds_this_very_code(image: str) -> None:
    if not REQUIRED:
        pytest.skip("only make test-images knows that the image was built just now")
    digests = (
        "import hashlib, pathlib, jobs; top = pathlib.Path(jobs.__file__).parent\n"
        "for p in sorted(top.rglob('*.py')): print(p.relative_to(top), hashlib.sha256(p.read_bytes()).hexdigest())"
    )
    result = docker("run", "--rm", "--entrypoint=python", image, "-c", digests)
    top = Path(jobs.__file__).parent
    here = [
        f"{path.relative_to(top)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(top.rglob("*.py"))
    ]
    assert result.stdout.splitlines() == here


def test_no_compiler_is_left(image: str) -> None:
    find = "for tool in cc gcc g++ clang nvcc; do command -v $tool; done; true"
    result = docker("run", "--rm", "--entrypoint=sh", image, "-c", find)
    assert (result.returncode, result.stdout) == (0, "")


def test_size_is_within_the_budget(image: str, program: str) -> None:
    size: Any = inspect(image, "{{.Size}}")
    assert int(size) <= SIZE_BUDGET_BYTES[program]
