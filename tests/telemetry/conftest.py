from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jobs.telemetry import monitor
from tests.support import fake_nvml as library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``libnvidia-ml.so.1`` for the real binding."""
    return library.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a driver of 2020 would offer it: many functions are missing."""
    return library.build(tmp_path_factory.mktemp("old-nvml"), "-DOLD_DRIVER")


# The dynamic loader reads LD_LIBRARY_PATH when a process starts, so every scenario is a process of its own.
PROGRAM = """
import json, os, sys, threading, time
from jobs.telemetry import monitor, sampler_process
from jobs.telemetry.sampler import nvml
from jobs.telemetry.types import Options
from jobs.adapter import FrameworkDevice
from jobs.phases import Clock, Span

request = json.loads(sys.argv[1])
# As on the host, wherever the tests run.
on_host = "from jobs.telemetry.sampler import nvml; nvml.in_host_pid_namespace = lambda: True; "
first = "from jobs.telemetry.sampler."
sampler_process.PROGRAM = sampler_process.PROGRAM.replace(first, on_host + first)
nvml.in_host_pid_namespace = lambda: True
clock = Clock()
sys.executable = request["executable"]
monitor.START_TIMEOUT_S = request["timeout_s"]
options = Options(mode=request["mode"], fast_s=0.02, gpm_s=0.1, slow_s=0.1)
watch = monitor.watch(clock=clock, options=options)
watch._store.has_inventory.wait(request["inventory_s"])  # as it is while the framework is imported
facts, watch_error = watch.attach(FrameworkDevice(**request["device"])), watch.watch_error
def mark():
    watch.mark()
    return clock()
start_s = mark()
store, pause = watch._store, threading.Event()
while len(store.series(request["until"]).times) < request["rows"] and clock() < start_s + request["longest_s"]:
    pause.wait(0.005)
middle_s = mark()
if request["span_s"] is not None:
    middle_s = start_s + request["span_s"]
for _ in range(request["marks"]):
    watch.mark()
    pause.wait(0.03)
live, end_s = watch.latest(), mark()
spans = [Span(name="startup", epoch=None, start_s=0.0, end_s=start_s),
         Span(name="train", epoch=1, start_s=start_s, end_s=middle_s)]
called_s = clock()
observation = watch.stop(spans)
stop_s = clock() - called_s
print(json.dumps({
    "facts": vars(facts), "watch_error": watch_error, "late_facts": vars(watch.device_facts()), "live": vars(live),
    "seconds": middle_s - start_s, "stop_s": stop_s,
    "start_s": start_s, "middle_s": middle_s, "origin_s": time.monotonic() - clock(),
    "telemetry": observation.telemetry.model_dump(), "gpu": observation.gpu[1] and observation.gpu[1].model_dump(),
    "startup": observation.gpu[0] and observation.gpu[0].model_dump(),
    "training": observation.training.model_dump(), "validity": observation.validity.model_dump(),
    "host": observation.host[1] and observation.host[1].model_dump(), "reasons": observation.null_reasons,
    "warnings": {w.code: w.message for w in observation.warnings},
    "columns": observation.timeseries and observation.timeseries.columns,
    "again": watch.stop([]) is observation,
}), flush=True)
os._exit(0)  # a thread that hangs in NVML must not hold up the interpreter's exit
"""


@pytest.fixture
def watched(fake_nvml: Path) -> Callable[..., dict[str, Any]]:
    """RunMonitor for ``rows`` readings against the stand-in set up by ``script``; without it against no library."""

    def watch(
        *,
        rows: int = 25,
        longest_s: float = 20,
        until: str = "power_w",
        marks: int = 0,
        span_s: float | None = None,
        mode: str = "process",
        inventory_s: float = 5,
        timeout_s: float = monitor.START_TIMEOUT_S,
        executable: str = sys.executable,
        library: Path | None = fake_nvml,
        device: dict[str, Any] | None = None,
        variables: dict[str, str] | None = None,
        **script: str,
    ) -> dict[str, Any]:
        hidden = {"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
        environment = {key: value for key, value in os.environ.items() if key not in hidden} | (variables or {})
        if library is not None:
            environment["LD_LIBRARY_PATH"] = str(library)
        environment |= {f"FAKE_NVML_{name.upper()}": value for name, value in script.items()}
        default = {"kind": "gpu", "index": 0, "name": "Fake", "uuid": "GPU-fake-0"}
        request = {
            "device": default if device is None else device,
            "rows": rows,
            "longest_s": longest_s,
            "until": until,
            "marks": marks,
            "span_s": span_s,
            "mode": mode,
            "inventory_s": inventory_s,
            "timeout_s": timeout_s,
            "executable": executable,
        }
        command = [sys.executable, "-c", PROGRAM, json.dumps(request)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["again"]
        return answer

    return watch


# Many cases in one process: the library reads the environment at every call, and os.environ writes it through.
PROGRAM_OF_CASES = """
import json, os, sys, threading
import pynvml
from jobs.adapter import FrameworkDevice
from jobs.phases import Clock, Span
from jobs.telemetry import monitor
from jobs.telemetry.sampler import nvml
from jobs.telemetry.types import Options

def observe(case):
    clock, uuid = Clock(), {"uuid": "GPU-fake-0"}
    nvml.in_host_pid_namespace = lambda: not case.get("container", False)
    options = Options(mode="thread", fast_s=0.01, gpm_s=0.2, slow_s=0.1)
    watch = monitor.watch(clock=clock, options=options, gpu_untouched=case.get("untouched", False))
    watch._store.has_inventory.wait(5)
    facts = watch.attach(FrameworkDevice(kind="gpu", index=0, name="Fake", **case.get("device", uuid)))
    watch.mark()
    start_s = clock()
    until, rows, longest_s = case.get("until", "sm_clock_hz"), case.get("rows", 20), 20 if facts.uuid else 0
    while len(watch._store.series(until).times) < rows and clock() < start_s + longest_s:
        threading.Event().wait(0.01)
        watch._sampler._loops[1]._writer.send("flush")
    end_s = clock()
    watch.mark()
    observation = watch.stop([Span(name="train", epoch=1, start_s=start_s, end_s=end_s)])
    return {
        "facts": vars(facts), "seconds": end_s - start_s, "reasons": observation.null_reasons,
        "gpu": observation.gpu[0] and observation.gpu[0].model_dump(), "validity": observation.validity.model_dump(),
        "warnings": {w.code: w.message for w in observation.warnings},
        "capabilities": {name: one.model_dump() for name, one in observation.telemetry.capabilities.items()},
    }

answers = []
for case in json.loads(sys.argv[1]):
    values = {name: str(os.getpid()) if value == "job" else value for name, value in case.get("script", {}).items()}
    script = {f"FAKE_NVML_{name}": value for name, value in values.items()}
    variables = script | case.get("variables", {})
    os.environ.update(variables)
    removed = {name: vars(pynvml).pop(name) for name in case.get("without", [])}
    answers.append(observe(case))
    vars(pynvml).update(removed)
    for name in variables:
        del os.environ[name]
print(json.dumps(answers), flush=True)
"""


@pytest.fixture(scope="session")
def observed(fake_nvml: Path) -> Callable[..., dict[Any, dict[str, Any]]]:
    """RunMonitor in threads, for cases by key: ``script`` sets up the stand-in, ``without`` names of the binding.

    A value ``job`` in ``script`` is the job's process id; ``container``: it has a PID namespace of its own.
    """

    def observe(cases: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
        hidden = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        environment["LD_LIBRARY_PATH"] = str(fake_nvml)
        command = [sys.executable, "-c", PROGRAM_OF_CASES, json.dumps(list(cases.values()))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return dict(zip(cases, json.loads(done.stdout), strict=True))

    return observe
