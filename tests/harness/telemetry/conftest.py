from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).parents[2] / "support" / "nvml" / "fake_nvml.c"


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``libnvidia-ml.so.1`` that the real binding loads."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in for libnvidia-ml.so.1 cannot be built")
    folder = tmp_path_factory.mktemp("nvml")
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


# The dynamic loader reads LD_LIBRARY_PATH when a process starts, so every scenario is a process of its own.
PROGRAM = """
import json, sys, time
from jobs.harness import telemetry
from jobs.harness.device import FrameworkDevice
from jobs.harness.phases import Clock, Span

request = json.loads(sys.argv[1])
clock = Clock()
watch = telemetry.watch(clock=clock, interval_s=0.02)
facts = watch.attach(FrameworkDevice(**request["device"]))
start_s = clock()
record = watch._sampler.record
wanted, deadline_s = request["rows"], start_s + 20
while record.taken < wanted and clock() < min(deadline_s, start_s + request["longest_s"]):
    time.sleep(0.005)
live, end_s = watch.latest(), clock()
observation = watch.stop([Span(name="train", epoch=1, start_s=start_s, end_s=end_s)])
stop_s = clock() - end_s
print(json.dumps({
    "facts": vars(facts), "live": vars(live), "seconds": end_s - start_s, "stop_s": stop_s,
    "telemetry": observation.telemetry.model_dump(), "gpu": [g and g.model_dump() for g in observation.gpu],
    "host": [h and h.model_dump() for h in observation.host], "reasons": observation.null_reasons,
    "warnings": [w.code for w in observation.warnings],
    "columns": observation.timeseries and observation.timeseries.columns,
    "again": watch.stop([]) is observation,
}), flush=True)
import os; os._exit(0)  # a thread that hangs in NVML must not hold up the interpreter's exit
"""


@pytest.fixture
def watched(fake_nvml: Path) -> Callable[..., dict[str, Any]]:
    """Watch for ``rows`` samples against the stand-in set up by ``script``; without it against no library."""

    def watch(
        *,
        rows: int = 25,
        longest_s: float = 20,
        library: bool = True,
        device: dict[str, Any] | None = None,
        **script: str,
    ) -> dict[str, Any]:
        variables = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
        if library:
            variables["LD_LIBRARY_PATH"] = str(fake_nvml)
        variables |= {f"FAKE_NVML_{name.upper()}": value for name, value in script.items()}
        default = {"kind": "gpu", "index": 0, "name": "Fake", "uuid": "GPU-fake-0"}
        request = {"device": default if device is None else device, "rows": rows, "longest_s": longest_s}
        command = [sys.executable, "-c", PROGRAM, json.dumps(request)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["again"]
        return answer

    return watch
