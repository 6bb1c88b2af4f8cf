"""The part of ``doctor --device gpu`` that uses the GPU, against the real NVML binding and a simulated library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.adapter import DeviceCheck, FrameworkDevice
from jobs.cli import device_proof
from jobs.cli.device_proof import check_digits, judge_telemetry, prove
from jobs.cli.finding import Finding
from jobs.exit_codes import ExitCode
from jobs.report import schema
from jobs.telemetry import monitor
from jobs.telemetry.metrics import GPU_METRICS
from jobs.telemetry.sampler.nvml import ComputeProcesses
from jobs.telemetry.types import Observation
from tests.support import fake_nvml
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A process of its own, since the dynamic loader reads LD_LIBRARY_PATH when one starts. The framework's products run on
# the CPU here; the simulated GPU is busier from second to second.
PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from jobs.adapter import DeviceCheck, FrameworkDevice, FrameworkVersions
from jobs.cli import device_proof, doctor
from jobs.errors import DeviceCheckFailed, NotMeasured

def fail():
    raise DeviceCheckFailed("eager steps and captured steps differ")

def skip():
    raise NotMeasured("not measured: XLA cannot compile the step")

def end():
    raise RuntimeError("CUDA error:\\n  an illegal memory access")

def multiply(spec):
    for _ in range(20):
        matrix = np.ones((200, 200)) @ np.ones((200, 200))

device = FrameworkDevice(kind="gpu", index=0, name="Fake", uuid="GPU-fake-0", compute_capability="9.0")
framework = SimpleNamespace(
    versions=lambda: FrameworkVersions(name="torch", version="0", cuda_runtime="13.0", cudnn="9.0.0"),
    select_device=lambda choice: device,
    device_checks=lambda device, data: [
        DeviceCheck(name="agrees", run=lambda: f"{len(data.train_images)} images"),
        DeviceCheck(name="differs", run=fail), DeviceCheck(name="skipped", run=skip),
        DeviceCheck(name="ends", run=end)],
    is_out_of_memory=lambda error: False,
    default_execution=lambda device, input_path: "graph",
    matmul_flop_per_s=multiply,
)
device_proof.IDLE_S = device_proof.BUSY_S = 1.5
choice, folder = sys.argv[1:]
found = doctor.examine(
    lambda: framework, device=choice, dataset=folder, report_dir=Path(folder), time_limit_s=60)
print(json.dumps({f.subject: [f.status, f.text, int(f.exit_code)] for f in found}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_nvml.build(tmp_path_factory.mktemp("nvml"))


def examine(folder: Path, library: Path | None, choice: str = "gpu", **script: str) -> dict[str, list[Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library)
    environment |= {f"FAKE_NVML_{name.upper()}": value for name, value in script.items()}
    command = [sys.executable, "-c", PROGRAM, choice, str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def test_proof_of_a_gpu_whose_readings_follow_the_work(library: Path, tmp_path: Path) -> None:
    found = examine(tmp_path, library, ramp=f"{time.monotonic() - 1}:0.5", processes="2")
    assert found["program"][0] == "ok"
    assert "compute capability 9.0" in found["program"][1]
    assert found["agrees"][1].startswith("1256 images (")
    assert found["differs"] == ["fail", "eager steps and captured steps differ", ExitCode.NO_USABLE_GPU]
    assert found["skipped"] == ["note", "not measured: XLA cannot compile the step", ExitCode.DONE]
    assert found["ends"] == ["fail", "RuntimeError: CUDA error: an illegal memory access", ExitCode.NO_USABLE_GPU]
    assert found["energy_j"][0] == "ok"
    for name in ("util_percent", "power_w"):
        # By how much depends on the speed of this machine.
        idle, busy = map(float, re.findall(r"([\d.]+) (?:idle|while the GPU worked)", found[name][1]))
        assert 0 < idle < busy
    # The simulated GPM always reads the same.
    assert found["sm_util_percent"][0] == "fail"
    assert "12.5 idle, 12.5 while the GPU worked: it does not follow the work" in found["sm_util_percent"][1]
    assert found["processes"][0] == "note"
    assert "but 1000, 1001; in a container, an older driver lists the host's ids, which is" in found["processes"][1]
    assert "a newer one lists the container's own processes, and should list this one" in found["processes"][1]
    assert "these checks took" in found["time"][1]
    order = list(found)
    assert order.index("util_percent") < order.index("processes") < order.index("agrees") < order.index("time")


@pytest.mark.parametrize("others", [set(), {1000}])
def test_proof_whose_process_is_listed_is_ok_also_in_a_container(
    others: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer driver gives the ids of the container, in which a job is often process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(device_proof, "processes_on", lambda _: ComputeProcesses(frozenset({1} | others), 0))
    found = device_proof._own_process(FrameworkDevice(kind="gpu", index=0, name="Fake", uuid="GPU-fake-0"))
    assert found.status == "ok"
    assert found.text.startswith("NVML lists this process, 1, on the device")


def test_proof_without_nvml_says_what_was_not_seen(tmp_path: Path) -> None:
    found = examine(tmp_path, None)
    assert found["agrees"][0] == "ok"
    assert found["telemetry"][0] == found["processes"][0] == "note"
    assert "NVML Shared Library Not Found" in found["telemetry"][1]


def test_doctor_without_device_gpu_does_not_use_the_gpu(tmp_path: Path) -> None:
    found = examine(tmp_path, None, "auto")
    assert found["device"] == ["ok", "Fake", ExitCode.DONE]
    assert not {"program", "agrees", "telemetry", "time"} & found.keys()


TELEMETRY_S = 8.0


def proved(monkeypatch: pytest.MonkeyPatch, durations_s: dict[str, float], limit_s: float) -> dict[str, Finding]:
    """The lines of a proof whose checks take these times, after telemetry, and the names of the checks that ran."""
    now_s = 1000.0

    def wait(seconds: float) -> str:
        nonlocal now_s
        now_s += seconds
        return "equal"

    def telemetry(*_: object) -> Iterator[Finding]:
        wait(TELEMETRY_S)
        yield Finding("ok", "util_percent", "")

    monkeypatch.setattr(device_proof, "_telemetry", telemetry)
    monkeypatch.setattr(device_proof, "_own_process", lambda _: Finding("ok", "processes", ""))
    checks = [DeviceCheck(name=name, run=lambda s=s: wait(s)) for name, s in durations_s.items()]  # type: ignore[misc]
    framework: Any = SimpleNamespace(device_checks=lambda *_: checks)
    device = FrameworkDevice(kind="gpu", index=0, name="Fake")
    return {finding.subject: finding for finding in prove(framework, device, limit_s=limit_s, clock=lambda: now_s)}


def test_proof_begins_no_check_that_would_end_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = proved(monkeypatch, {"first": 20.0, "second": 21.0, "third": 5.0, "last": 5.0}, limit_s=60.0)
    assert list(found) == ["program", "util_percent", "processes", "first", "second", "third", "last", "time"]
    assert [found[name].status for name in ("first", "second", "third", "last")] == ["ok", "ok", "note", "note"]
    assert found["second"].text == "equal (21.0 s)"
    assert found["third"].text == (
        "not checked: 49 s have passed, and the limit is 60 s; `doctor --device gpu` with a longer --time-limit checks "
        "it too"
    )
    assert (found["time"].status, found["time"].text) == ("ok", "these checks took 49 s; the limit is 60 s")
    assert {finding.exit_code for finding in found.values()} == {ExitCode.DONE}


def test_proof_with_a_longer_limit_runs_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    found = proved(monkeypatch, {"first": 20.0, "second": 21.0, "third": 5.0, "last": 5.0}, limit_s=600.0)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["time"].text == "these checks took 59 s; the limit is 600 s"


def test_proof_whose_check_takes_longer_than_the_limit_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had begun and is not ended."""
    found = proved(monkeypatch, {"first": 90.0, "second": 1.0}, limit_s=60.0)
    assert found["first"].text == "equal (90.0 s)"
    assert found["second"].text.startswith("not checked: 98 s have passed")
    assert (found["time"].status, found["time"].text) == ("note", "these checks took 98 s; the limit is 60 s")


def test_watched_work_begins_after_the_first_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one starts CUDA: no work of the GPU, so it is in neither interval."""
    done: list[str] = []
    watch = SimpleNamespace(attach=lambda _: None, mark=lambda: done.append("mark"), stop=lambda spans: spans)
    monkeypatch.setattr(monitor, "watch", lambda **_: watch)
    monkeypatch.setattr(device_proof, "IDLE_S", 0.0)
    monkeypatch.setattr(device_proof, "BUSY_S", 0.0)
    framework: Any = SimpleNamespace(
        default_execution=lambda *_: "graph", matmul_flop_per_s=lambda _: done.append("product")
    )
    device_proof.watch_work(framework, FrameworkDevice(kind="gpu", index=0, name="Fake"))
    assert done == ["mark", "mark", "product", "mark", "mark"]


def reading(mean: float | None) -> schema.Aggregate | None:
    if mean is None:
        return None
    return schema.Aggregate(mean=mean, p50=mean, p95=mean, max=mean, n=20, coverage_ratio=1.0, quality="ok")


def observation(
    *, util: tuple[float | None, float | None] = (0, 99), energy_j: float | None = 800.0, supported: bool = True
) -> Observation:
    """Of an idle interval and of one at work."""
    phases = []
    for value, joule in zip(util, (200.0, energy_j), strict=True):
        fields = dict.fromkeys(schema.GpuPhase.model_fields)
        fields |= {
            "util_percent": reading(value),
            "energy_j": joule,
            "energy_source": None if joule is None else "the counter",
        }
        phases.append(schema.GpuPhase(**fields))
    source = "NVML" if supported else None
    error = None if supported else "Not Supported"
    capability = schema.Capability(supported=supported, source=source, error=error, window_s=None)
    sampler = schema.Sampler(
        mode="process", interval_s=0.1, taken=1, missed=0, lateness_p95_ms=0.0, cpu_s=0.1, startup_cpu_s=0.1, rates={}
    )
    return Observation(
        telemetry=schema.Telemetry(
            available=True, capabilities={metric.name: capability for metric in GPU_METRICS}, sampler=sampler
        ),
        gpu=tuple(phases),
        host=(None, None),
        training=None,
        validity=schema.Validity(status="ok", causes=[]),
        timeseries=None,
        null_reasons={f"phases[].gpu.{name}": "the reading stood still" for name in ("energy_j", "util_percent")},
        warnings=(),
    )


@pytest.mark.parametrize(
    ("changes", "subject", "status", "words"),
    [
        ({}, "util_percent", "ok", "0.0 idle, 99.0 while the GPU worked"),
        ({"util": (0, 0)}, "util_percent", "fail", "it does not follow the work"),
        ({"util": (3, 3.1)}, "util_percent", "fail", "it does not follow the work"),
        ({"util": (97, 100)}, "util_percent", "note", "it was in use before"),
        ({"util": (0, None)}, "util_percent", "fail", "though NVML answers: the reading stood still"),
        ({"util": (None, None), "supported": False}, "util_percent", "note", "not offered here: Not Supported"),
        ({}, "energy_j", "ok", "800 J while the GPU worked (the counter)"),
        ({"energy_j": 0.0}, "energy_j", "fail", "the counter stands still"),
        ({"energy_j": None}, "energy_j", "fail", "though NVML answers: the reading stood still"),
        ({"energy_j": None, "supported": False}, "energy_j", "note", "not offered here"),
    ],
)
def test_judged_telemetry_says_whether_it_follows_the_work(
    changes: dict[str, Any], subject: str, status: str, words: str
) -> None:
    found = {finding.subject: finding for finding in judge_telemetry(observation(**changes))}[subject]
    assert found.status == status
    assert words in found.text
    assert found.exit_code == (ExitCode.NO_USABLE_GPU if status == "fail" else ExitCode.DONE)


def test_check_digits_are_twenty_steps_the_last_a_short_one() -> None:
    digits = check_digits()
    assert digits.train_images.shape == (19 * 64 + 40, 28, 28)
    assert digits.train_labels.max() == 9
