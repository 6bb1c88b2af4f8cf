"""How the sampler starts, hangs, crashes and ends, against a stand-in for NVIDIA's library."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jobs.adapter import FrameworkDevice
from jobs.telemetry import monitor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Watched = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_nvml_hanging_call_delays_neither_start_nor_stop(mode: str, watched: Watched) -> None:
    seen = watched(longest_s=1, hang="nvmlDeviceGetClockInfo:6", until="sm_clock_hz", mode=mode)
    assert seen["stop_s"] < 2
    assert "hangs" in seen["warnings"]["telemetry_hangs"]
    assert seen["gpu"]["sm_clock_hz"]["max"] == 1.5e9
    assert seen["validity"]["status"] == "unchecked"
    # The host is read by a loop of its own.
    assert seen["host"]["cpu_percent"]["coverage_ratio"] > 0.3


def test_nvml_hanging_start_times_out(watched: Watched) -> None:
    stuck = watched(longest_s=1, hang="nvmlInitWithFlags:0")
    assert stuck["stop_s"] < 2
    assert stuck["gpu"] is None
    assert "did not answer within 5 s" in stuck["reasons"]["phases[].gpu"]
    assert "did not answer within 5 s" in stuck["facts"]["null_reasons"]["environment.driver_version"]
    assert stuck["host"]["rss_peak_bytes"] > 0


def test_sampler_killed_job_with_a_forked_child_ends(fake_nvml: Path) -> None:
    """The child has a copy of the pipe to the sampler, which so never ends."""
    program = (
        "import os, signal, time\n"
        "from jobs.telemetry import monitor\n"
        "watch = monitor.watch(clock=time.monotonic)\n"
        "watch._store.has_inventory.wait(60)\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "print(watch._sampler._process.pid, child, flush=True)\n"
        "signal.pause()\n"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(fake_nvml)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        sampler, child = (psutil.Process(int(number)) for number in job.stdout.readline().split())
        try:
            job.kill()
            job.wait()
            assert child.is_running()
            sampler.wait(timeout=30)
        finally:
            child.kill()


def test_probe_without_process_or_thread_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    # No system has so much memory for the stack of a thread.
    before = threading.stack_size(2**46)
    try:
        begun_s = time.monotonic()
        status = monitor.probe(FrameworkDevice(kind="gpu", index=0, name="Fake", uuid="GPU-fake-0"), seconds=60)
        took_s = time.monotonic() - begun_s
    finally:
        threading.stack_size(before)
    assert took_s < monitor.START_TIMEOUT_S
    assert not status.available
    assert "no sampler could be started" in str(status.error)


def test_nvml_crash_ends_only_the_sampler(watched: Watched) -> None:
    seen = watched(crash="nvmlDeviceGetClockInfo:20", longest_s=1.5)
    assert "ended before the run did" in seen["warnings"]["telemetry_died"]
    assert seen["validity"]["status"] == "unchecked"
    assert seen["telemetry"]["sampler"]["mode"] == "process"


def test_nvml_crash_at_start_is_not_tried_in_threads(watched: Watched) -> None:
    seen = watched(crash="nvmlDeviceGetCount_v2:0", longest_s=0.2)
    assert seen["telemetry"]["sampler"]["mode"] == "process"
    assert seen["gpu"] is None


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/false"])
def test_sampler_without_process_runs_in_threads(executable: str, watched: Watched) -> None:
    seen = watched(executable=executable, rows=30)
    assert seen["gpu"]["power_w"]["mean"] == 100
    assert seen["telemetry"]["sampler"]["mode"] == "thread"
    assert "telemetry_in_thread" in seen["warnings"]


def test_sampler_current_folder_is_not_imported(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.chdir(tmp_path)
    seen = watched(rows=5, variables={"PYTHONSAFEPATH": "1"})
    assert seen["telemetry"]["sampler"]["mode"] == "process"


def test_sampler_steady_run_accounts_for_its_rates(watched: Watched) -> None:
    sampler = watched(rows=100)["telemetry"]["sampler"]
    assert sampler["mode"] == "process"
    assert sampler["taken"] >= 100
    assert sampler["planned"] == sampler["taken"] + sampler["missed"]
    assert sampler["lateness_p95_ms"] is not None
    assert set(sampler["rates"]) == {"fast", "gpm", "slow", "host"}
    assert sampler["rates"]["slow"]["interval_s"] == 0.1
    assert 0 < sampler["cpu_s"] < 2
    assert sampler["startup_cpu_s"] > 0
