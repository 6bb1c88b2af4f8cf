"""Telemetry does not change training: whatever NVML does, losses and exit code are the same."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from jobs.cli.app import exit_code_of
from jobs.report import read
from jobs.telemetry import monitor
from tests.support import fake_nvml as library
from tests.support.programs import once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import Framework
    from jobs.cli.app import Program
    from jobs.report import Report

ALL = ("UtilizationRates", "PowerUsage", "FieldValues", "ClockInfo", "MemoryInfo_v2", "MemoryInfo", "Temperature")
LOST = ",".join(f"nvmlDeviceGet{name}:15:3" for name in ALL)

SCENARIOS: dict[str, dict[str, str]] = {
    "steady": {},
    "two GPUs": {"GPUS": "2"},
    "MIG": {"MIG": "2"},
    "no GPM": {"GPM": "0"},
    "the driver's buffer": {"SAMPLES": "boot"},
    "an empty buffer": {"SAMPLES": "empty"},
    "a counter that wraps": {"ENERGY32": str(2**32 - 20_000)},
    "nothing but power": {"FAIL": ",".join(f"nvmlDeviceGet{name}:3:0" for name in ALL if name != "PowerUsage")},
    "no permission in mid-run": {"FAIL": "nvmlDeviceGetFieldValues:4:2,nvmlGpmSampleGet:4:1"},
    "a lost GPU": {"FAIL": LOST},
    "driver and library differ": {"FAIL": "nvmlInitWithFlags:18:0"},
    "an unknown error": {"FAIL": "nvmlInitWithFlags:999:0"},
    "a call that hangs": {"HANG": "nvmlDeviceGetUtilizationRates:3"},
    "a crash": {"CRASH": "nvmlDeviceGetClockInfo:5"},
    "throttled, with errors": {"THROTTLE": "0.5", "ECC": "1000", "PROCESSES": "2"},
}


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library.build(tmp_path_factory.mktemp("old-nvml"), "-DOLD_DRIVER")


@pytest.fixture
def train(
    program: Program,
    framework: Framework,  # noqa: ARG001 - imported once, before the first run is timed
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Report]:
    """Train two epochs in this process; the sampler's own finds ``nvml``, scripted by ``script``."""

    def run(nvml: Path | None, script: dict[str, str], *arguments: str) -> Report:
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
        if nvml is not None:
            monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml))
        uuid = script.get("WATCH", "MIG-fake-0-1" if "MIG" in script else "GPU-fake-0")
        monkeypatch.setenv("MNIST_JOBS_WATCH_GPU", uuid)
        for name, value in script.items():
            monkeypatch.setenv(f"FAKE_NVML_{name}", value)
        common = ["train", "--device", "cpu", "--epochs", "2", "--dataset", str(folder), "--sample-ms", "10"]
        reports = tmp_path / "reports"
        assert exit_code_of(program, [*common, "--report-dir", str(reports), *arguments]) == 0
        (path,) = reports.glob("*.json")
        report = read(path)
        assert json.loads(path.read_text())["telemetry"]["available"] is report.telemetry.available
        assert report.unexplained_nulls() == []
        return report

    return run


def _losses(report: Report) -> list[Any]:
    """All results of training."""
    return [(epoch.train_loss, epoch.test_loss, epoch.test_accuracy_ratio) for epoch in report.results.epochs]


@pytest.fixture(scope="module")
def without_telemetry(program: Program, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    reports = tmp_path_factory.mktemp("without-telemetry")
    arguments = ["train", "--device", "cpu", "--epochs", "2", "--dataset", str(folder), "--telemetry", "off"]
    assert exit_code_of(program, [*arguments, "--report-dir", str(reports)]) == 0
    (path,) = reports.glob("*.json")
    return _losses(read(path))


# The sampler is the same in both environments: by default all of it is tried where a framework starts faster.
IN_EVERY_FRAMEWORK = {"steady", "MIG", "a lost GPU", "a crash"}


@pytest.mark.parametrize(
    "name", [name if name in IN_EVERY_FRAMEWORK else pytest.param(name, marks=once) for name in SCENARIOS]
)
def test_losses_any_nvml_behaviour_are_bit_identical(
    name: str, nvml: Path, train: Callable[..., Report], without_telemetry: list[Any]
) -> None:
    report = train(nvml, SCENARIOS[name])
    assert report.status == "completed"
    assert _losses(report) == without_telemetry
    for phase in report.phases:
        if phase.gpu is not None and phase.gpu.power_w is not None:
            assert phase.gpu.power_w.mean == pytest.approx(100)


@pytest.mark.parametrize("arguments", [["--telemetry", "thread"], ["--telemetry", "off"], []])
def test_losses_without_library_in_any_mode_are_bit_identical(
    arguments: list[str], train: Callable[..., Report], without_telemetry: list[Any]
) -> None:
    report = train(None, {}, *arguments)
    assert _losses(report) == without_telemetry
    assert not report.telemetry.available
    assert report.telemetry.sampler.mode == (arguments[1] if arguments else "process")


def test_losses_old_driver_are_bit_identical(
    old_nvml: Path, train: Callable[..., Report], without_telemetry: list[Any]
) -> None:
    report = train(old_nvml, {})
    assert _losses(report) == without_telemetry
    assert report.telemetry.available
    assert not report.telemetry.capabilities["sm_util_percent"].supported


def test_train_watched_gpu_with_typo_is_named_as_an_error(
    nvml: Path, train: Callable[..., Report], without_telemetry: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    report = train(nvml, {"WATCH": "GPU-fake-O"})
    assert _losses(report) == without_telemetry
    (warning,) = report.warnings
    assert warning.code == "watched_gpu_not_found"
    assert f"error: {warning.message}" in "".join(capfd.readouterr())


def test_report_nvml_answers_late_has_the_device(
    nvml: Path, train: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "START_TIMEOUT_S", 0.1)
    report = train(nvml, {"DELAY": "nvmlSystemGetCudaDriverVersion:1"})
    assert report.environment.driver_version == "999.12.3"
    assert report.environment.cuda_driver_version == "13.2"


def test_report_steady_gpu_has_the_readings(nvml: Path, train: Callable[..., Report], tmp_path: Path) -> None:
    prometheus = tmp_path / "job.prom"
    begun_s = time.process_time()
    report = train(nvml, {}, "--metrics-textfile", str(prometheus), "--repeat", "30")
    used_s = time.process_time() - begun_s
    assert report.training is not None
    assert report.training.gpu is not None
    gpu, host = report.training.gpu, report.training.host
    assert gpu.energy_j == pytest.approx(100 * report.training.duration_s, rel=0.1)
    assert gpu.throttle_s is not None
    assert host is not None
    assert host.cpu_percent is not None
    # No more than the whole run used; a framework may spend most of it before training.
    assert 0 < host.cpu_percent.mean / 100 * report.training.duration_s < 1.1 * used_s
    assert host.main_thread_percent is not None
    assert report.validity is not None
    assert report.validity.status == "ok"
    assert report.environment.driver_version == "999.12.3"
    assert [warning.code for warning in report.warnings] == ["watched_gpu_not_used"]
    assert "mnist_job_gpu_energy_joules" in prometheus.read_text()
    assert "mnist_job_gpu_power_watts" in prometheus.read_text()
    # The energy counter is too coarse for less than a second. The repeats are one long phase, nearly all of training.
    energies = {}
    for phase in report.phases:
        if phase.name == "train":
            assert phase.gpu is not None
            assert (phase.gpu.energy_j is None) == (phase.end_s - phase.start_s < 1)
            energies[phase.epoch] = phase.gpu.energy_j
    assert energies[None] == pytest.approx(gpu.energy_j, rel=0.2)
