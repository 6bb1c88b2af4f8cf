"""The real binding and the real sampler against a stand-in for NVIDIA's library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Watched = Callable[..., dict[str, Any]]


def _fail(function: str, code: int, after: int = 0) -> str:
    return f"{function}:{code}:{after}"


def test_steady_readings_come_out_as_they_are(watched: Watched) -> None:
    seen = watched(rows=40)
    (gpu,) = seen["gpu"]
    assert gpu["util_percent"]["mean"] == gpu["util_percent"]["max"] == 40
    assert gpu["memory_util_percent"]["mean"] == 10
    assert gpu["power_w"]["mean"] == 100
    assert gpu["memory_used_peak_bytes"] == 2**30
    assert gpu["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.05)
    assert seen["live"] == {"gpu_util_percent": 40, "power_w": 100, "memory_used_bytes": 2**30}
    assert seen["telemetry"]["available"]
    assert set(seen["columns"]) >= {"util_percent", "power_w", "memory_used_bytes", "energy_j", "rss_bytes"}
    assert seen["host"][0]["rss_peak_bytes"] > 10_000_000
    facts = seen["facts"]
    assert facts["driver_version"] == "999.12.3"
    assert facts["cuda_driver_version"] == "13.2"
    assert facts["power_limit_w"] == 700
    assert facts["memory_total_bytes"] == 16 * 2**30


@pytest.mark.parametrize(
    ("device", "method"),
    [({"uuid": "GPU-fake-1"}, "uuid"), ({"pci_bus_id": "0000:01:00.0"}, "pci_bus_id")],
    ids=["uuid", "pci"],
)
def test_of_two_gpus_the_job_s_own_is_read(device: dict[str, str], method: str, watched: Watched) -> None:
    seen = watched(gpus="2", device={"kind": "gpu", "index": 0, "name": "Fake", **device})
    assert seen["facts"]["mapping_method"] == method
    assert seen["facts"]["uuid"] == "GPU-fake-1"
    assert seen["gpu"][0]["util_percent"]["mean"] == 41


def test_the_only_gpu_needs_no_name_but_among_two_none_is_guessed(watched: Watched) -> None:
    nameless = {"kind": "gpu", "index": 0, "name": "Fake"}
    assert watched(device=nameless)["facts"]["mapping_method"] == "only_gpu"
    seen = watched(gpus="2", device=nameless)
    assert seen["gpu"] == [None]
    assert "which of 2 GPUs" in seen["reasons"]["phases[].gpu"]
    assert not seen["telemetry"]["available"]


def test_a_cpu_job_reads_no_gpu(watched: Watched) -> None:
    seen = watched(device={"kind": "cpu", "index": 0, "name": "cpu"})
    assert seen["gpu"] == [None]
    assert seen["reasons"]["phases[].gpu"] == "the job ran on the CPU"
    assert seen["facts"]["driver_version"] == "999.12.3"


def test_without_the_library_the_host_s_figures_are_there(watched: Watched) -> None:
    seen = watched(library=False, rows=60)
    assert seen["gpu"] == [None]
    assert "NVML Shared Library Not Found: no NVIDIA driver here" in seen["reasons"]["phases[].gpu"]
    assert seen["host"][0]["rss_peak_bytes"] > 0
    assert "--gpus all" in seen["facts"]["null_reasons"]["environment.driver_version"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reload the driver or restart the node"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "load the NVIDIA driver on the host"),
        (pynvml.NVML_ERROR_UNKNOWN, "restart the container"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "may not read it"),
    ],
)
def test_a_failed_start_says_what_to_do(code: int, words: str, watched: Watched) -> None:
    seen = watched(fail=_fail("nvmlInitWithFlags", code) + "," + _fail("nvmlInit_v2", code))
    assert seen["gpu"] == [None]
    assert words in seen["reasons"]["phases[].gpu"]


def test_one_figure_that_is_not_supported_does_not_take_the_others_along(watched: Watched) -> None:
    seen = watched(fail=_fail("nvmlDeviceGetUtilizationRates", pynvml.NVML_ERROR_NOT_SUPPORTED))
    (gpu,) = seen["gpu"]
    assert gpu["util_percent"] is None
    assert gpu["power_w"]["mean"] == 100
    capability = seen["telemetry"]["capabilities"]["util_percent"]
    assert not capability["supported"]
    assert "this GPU does not offer it" in capability["error"]
    assert "this GPU does not offer it" in seen["reasons"]["phases[].gpu.util_percent"]


def test_permission_lost_in_mid_run_leaves_what_was_read(watched: Watched) -> None:
    seen = watched(rows=40, fail=_fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_NO_PERMISSION, 10))
    (gpu,) = seen["gpu"]
    assert gpu["power_w"]["n"] <= 10
    assert gpu["power_w"]["quality"] == "insufficient"
    assert gpu["util_percent"]["n"] > 20
    assert "may not read it" in seen["telemetry"]["capabilities"]["power_w"]["error"]


def test_a_lost_gpu_leaves_what_was_read(watched: Watched) -> None:
    lost = pynvml.NVML_ERROR_GPU_IS_LOST
    names = ("UtilizationRates", "PowerUsage", "TotalEnergyConsumption", "MemoryInfo", "MemoryInfo_v2")
    seen = watched(rows=40, fail=",".join(_fail(f"nvmlDeviceGet{name}", lost, 12) for name in names))
    (gpu,) = seen["gpu"]
    assert gpu["util_percent"]["max"] == 40
    assert gpu["energy_j"] is None
    assert "drain the node" in seen["reasons"]["phases[].gpu.energy_j"]


def test_a_call_that_hangs_holds_up_neither_start_nor_stop(watched: Watched) -> None:
    seen = watched(longest_s=1, hang="nvmlDeviceGetPowerUsage:3")
    assert seen["stop_s"] < 2.5
    assert seen["warnings"] == ["telemetry_hangs"]
    assert seen["gpu"][0]["util_percent"]["max"] == 40
    stuck = watched(longest_s=1, hang="nvmlInitWithFlags:0")
    assert stuck["gpu"] == [None]
    assert stuck["reasons"]["phases[].gpu"] == "NVML did not answer"
    assert "did not answer within 5 s" in stuck["facts"]["null_reasons"]["environment.driver_version"]


def test_the_sampler_keeps_its_times(watched: Watched) -> None:
    sampler = watched(rows=50)["telemetry"]["sampler"]
    assert sampler["mode"] == "thread"
    assert sampler["taken"] >= 50
    assert sampler["cpu_s"] is not None
    assert sampler["lateness_p95_ms"] is not None
