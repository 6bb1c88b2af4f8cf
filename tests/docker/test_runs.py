"""Both images, run as operators run them."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from jobs import __version__, report
from jobs.exit_codes import ExitCode
from jobs.telemetry.monitor import WATCH_GPU_VARIABLE
from jobs.training.termination_message import LIMIT_BYTES, PATH_VARIABLE
from tests.docker.conftest import DOCKER, LOCKED_DOWN, MNIST_RUN, QUICK_RUN, docker, image_label, image_named

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def only_report(folder: Path) -> report.Report:
    (path,) = folder.iterdir()
    return report.read(path)


def test_run_with_read_only_root_and_no_network_writes_a_report(image: str, program: str, reports: Path) -> None:
    result = docker("run", *LOCKED_DOWN, f"--volume={reports}:/reports", image, *MNIST_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    written = only_report(reports)
    assert written.status == "completed"
    assert written.config.dataset.name == "mnist"
    assert written.config.framework == {"mnist-tf": "tensorflow", "mnist-torch": "torch"}[program]
    assert written.environment.image is not None
    assert written.environment.image.ref == image
    assert written.environment.git_sha == (image_label(image, "revision") or None)
    assert written.environment.package_version == image_label(image, "version") == __version__
    # The same report is in what the container printed, as `kubectl logs` would show it.
    lines = [report.from_line(line, origin="log") for line in result.stdout.splitlines()]
    assert [line.run_id for line in lines if line] == [written.run_id]


# One unknown to /etc/passwd, nobody, and root's group as OpenShift gives it.
@pytest.mark.parametrize("user", ["12345:12345", "65534:65534", "1000650000:0"])
def test_run_as_any_user_writes_a_report(image: str, reports: Path, digits: str, user: str) -> None:
    options = (*LOCKED_DOWN, f"--volume={reports}:/reports", digits, f"--user={user}")
    result = docker("run", *options, image, *QUICK_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert only_report(reports).status == "completed"


def test_run_as_the_default_user_needs_no_report_volume(
    image: str, container: str, digits: str, tmp_path: Path
) -> None:
    result = docker("run", "--name", container, "--network=none", digits, image, *QUICK_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert docker("cp", f"{container}:/reports", str(tmp_path)).returncode == 0
    assert only_report(tmp_path / "reports").status == "completed"


def test_run_compiled_with_only_tmp_writable_completes(reports: Path, digits: str) -> None:
    image = image_named("mnist-tf")
    options = (*LOCKED_DOWN, f"--volume={reports}:/reports", digits, "--user=12345:12345")
    result = docker("run", *options, image, *QUICK_RUN, "--execution=compiled")
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert only_report(reports).config.execution == "compiled"


def test_run_streamed_input_with_read_only_root_completes(image: str, reports: Path, digits: str) -> None:
    options = (*LOCKED_DOWN, f"--volume={reports}:/reports", digits)
    result = docker("run", *options, image, *QUICK_RUN, "--input=streamed")
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    assert only_report(reports).config.input == "streamed"


@pytest.fixture
def termination_log(tmp_path: Path) -> Path:
    """A file that any user may write to, mounted alone, as the kubelet does it."""
    path = tmp_path / "termination-log"
    path.touch()
    path.chmod(0o666)
    return path


def terminated(path: Path) -> dict[str, Any]:
    assert 0 < path.stat().st_size <= LIMIT_BYTES
    (line,) = path.read_text("utf-8").splitlines()
    message: dict[str, Any] = json.loads(line)
    return message


def test_run_writes_a_termination_message(image: str, reports: Path, digits: str, termination_log: Path) -> None:
    options = (
        *(*LOCKED_DOWN, f"--env={PATH_VARIABLE}=/dev/termination-log", "--env=MNIST_JOBS_NODE_NAME=node-7"),
        *("--env=MNIST_JOBS_POD_NAME=pod", f"--volume={termination_log}:/dev/termination-log", digits),
    )
    result = docker("run", *options, f"--volume={reports}:/reports", image, *QUICK_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    message, written = terminated(termination_log), only_report(reports)
    assert (message["exit_code"], message["error"], message["node"]) == (0, None, "node-7")
    (run,) = message["runs"]
    assert run["run_id"] == written.run_id
    assert run["test_accuracy_ratio"] == written.results.test_accuracy_ratio
    # And so does one that fails, here for want of a volume at /reports.
    result = docker("run", *options, image, *QUICK_RUN)
    message = terminated(termination_log)
    assert message["exit_code"] == result.returncode == ExitCode.REPORT_NOT_WRITABLE
    assert f"error: {message['error']}" in result.stderr


def test_run_missing_gpu_is_an_error(image: str) -> None:
    result = docker("run", "--rm", "--env=NVIDIA_VISIBLE_DEVICES=void", image, "train", "--device=gpu", "--epochs=1")
    assert result.returncode == ExitCode.NO_USABLE_GPU, result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_run_without_a_writable_folder_fails_before_training(image: str, digits: str) -> None:
    result = docker("run", "--rm", "--read-only", "--tmpfs=/tmp", digits, image, *QUICK_RUN)
    assert result.returncode == ExitCode.REPORT_NOT_WRITABLE, result.stdout + result.stderr
    assert "/reports" in result.stderr


def test_docker_stop_during_training_ends_with_a_report(image: str, container: str, reports: Path, digits: str) -> None:
    options = ("--detach", "--name", container, f"--volume={reports}:/reports", "--read-only", "--tmpfs=/tmp", digits)
    assert docker("run", *options, image, *QUICK_RUN, "--epochs=5000").returncode == 0
    follow_until(container, "train loss")
    assert docker("stop", "--time=60", container).returncode == 0
    state = docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
    assert state == str(int(ExitCode.INTERRUPTED)), docker("logs", container).stderr
    written = only_report(reports)
    assert written.status == "interrupted"
    assert written.results.epochs


def test_docker_stop_outside_training_ends_the_process(image: str, container: str) -> None:
    """Process 1 ignores a signal that it has no handler for; then `docker stop` would wait and kill."""
    code = (
        "import time; from jobs.training.signals import ExitOnSignal; ExitOnSignal().install(); "
        "print('ready', flush=True); time.sleep(300)"
    )
    options = ("--detach", "--name", container, "--entrypoint=python")
    assert docker("run", *options, image, "-c", code).returncode == 0
    follow_until(container, "ready")
    assert docker("stop", "--time=60", container).returncode == 0
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "143"


def follow_until(container: str, text: str) -> None:
    """Until the container has printed ``text``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = docker("logs", container)
        if text in log.stdout + log.stderr:
            return
        time.sleep(0.2)
    pytest.fail(f"{container} never printed {text!r}: {docker('logs', container).stderr}")


def test_run_without_arguments_shows_the_help(image: str, program: str) -> None:
    result = docker("run", "--rm", image)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: {program} ")


# Where NVIDIA's container toolkit mounts the driver's own.
LIBRARY = f"/usr/lib/{platform.machine()}-linux-gnu/libnvidia-ml.so.1"


def test_run_with_a_mounted_nvml_reports_gpu_figures(image: str, reports: Path, fake_nvml: Path) -> None:
    """The framework finds no GPU here: the job runs on the CPU and is told to watch the one that NVML names."""
    options = (*LOCKED_DOWN, f"--volume={fake_nvml}:{LIBRARY}:ro", f"--volume={reports}:/reports")
    doctor = docker("run", *options, image, "doctor", "--device=cpu")
    assert doctor.returncode == ExitCode.DONE, doctor.stdout + doctor.stderr
    assert "ok    NVML: driver 999.12.3" in doctor.stdout
    (uuid,) = set(re.findall(r"GPU-[0-9a-z-]+", doctor.stdout))
    result = docker("run", *options, f"--env={WATCH_GPU_VARIABLE}={uuid}", image, *MNIST_RUN)
    assert result.returncode == ExitCode.DONE, result.stdout + result.stderr
    written = only_report(reports)
    assert written.environment.driver_version == "999.12.3"
    assert written.telemetry.available
    (train,) = (phase for phase in written.phases if phase.name == "train")
    assert train.gpu is not None
    assert train.gpu.util_percent is not None
    assert train.gpu.util_percent.mean > 0
    assert train.gpu.power_w is not None
    assert train.gpu.power_w.mean > 0


def test_merge_image_reports_of_both_images_are_merged(merge_image: str, reports: Path, digits: str) -> None:
    for name in ("mnist-tf", "mnist-torch"):
        options = (*LOCKED_DOWN, f"--volume={reports}:/reports", digits, "--user=12345:12345")
        assert docker("run", *options, image_named(name), *QUICK_RUN).returncode == ExitCode.DONE
    merged = docker("run", *options, merge_image, "/reports", "--output-dir", "/reports/comparison")
    assert merged.returncode == ExitCode.DONE, merged.stdout + merged.stderr
    assert "2 runs merged" in merged.stdout
    assert (reports / "comparison" / "comparison.json").stat().st_size > 0


def test_merge_image_log_of_both_images_is_merged(merge_image: str, digits: str) -> None:
    """With nothing shared at all, the log is enough."""
    log = ""
    for name in ("mnist-tf", "mnist-torch"):
        result = docker("run", *LOCKED_DOWN, "--tmpfs=/reports", digits, image_named(name), *QUICK_RUN)
        assert result.returncode == ExitCode.DONE, result.stderr
        log += result.stdout + result.stderr
    command = ["run", "--interactive", *LOCKED_DOWN, merge_image, "-", "--output-dir", "/tmp/comparison"]  # noqa: S108
    merged = subprocess.run([DOCKER, *command], input=log, capture_output=True, text=True, check=False, timeout=300)
    assert merged.returncode == ExitCode.DONE, merged.stderr
    assert "2 runs merged" in merged.stdout
