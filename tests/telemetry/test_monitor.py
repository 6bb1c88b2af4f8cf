"""The real binding and the real sampler against a stand-in for NVIDIA's library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from jobs.phases import Clock, Span
from jobs.telemetry import monitor
from jobs.telemetry.types import Options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Watched = Callable[..., dict[str, Any]]

GPM = {
    "graphics_util_percent": 90,
    "sm_util_percent": 12.5,
    "sm_occupancy_percent": 6.25,
    "tensor_util_percent": 2,
    "hmma_util_percent": 1,
    "fp32_util_percent": 3,
    "dram_bandwidth_util_percent": 5,
    "pcie_tx_bytes_per_s": 8 * 2**20,
    "pcie_rx_bytes_per_s": 4 * 2**20,
}


THROTTLING_POLLED = ("power_cap", "sync_boost", "hw_slowdown", "sw_thermal", "hw_thermal", "hw_power_brake")


def _fail(function: str, code: int, after: int = 0) -> str:
    return f"{function}:{code}:{after}"


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_observation_steady_readings_give_their_values(mode: str, watched: Watched) -> None:
    seen = watched(rows=100, mode=mode)
    gpu = seen["gpu"]
    assert gpu["util_percent"]["mean"] == gpu["util_percent"]["max"] == 40
    assert gpu["memory_util_percent"]["mean"] == 10
    assert gpu["power_w"]["mean"] == 100
    assert gpu["sm_clock_hz"]["mean"] == 1.5e9
    assert gpu["memory_clock_hz"]["mean"] == 2.6e9
    assert gpu["temperature_c"]["mean"] == 50
    assert gpu["memory_used_peak_bytes"] == 2**30
    assert gpu["memory_reserved_bytes"] == 2**28
    assert {name: gpu[name]["mean"] for name in GPM} == GPM
    assert gpu["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.05)
    assert gpu["energy_source"] == "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    assert gpu["energy_from_power_j"] == pytest.approx(100 * seen["seconds"], rel=0.05)
    assert gpu["pcie_tx_bytes"] == pytest.approx(1e6 * seen["seconds"], rel=0.05)
    assert gpu["pcie_rx_bytes"] == pytest.approx(2e6 * seen["seconds"], rel=0.05)
    assert gpu["throttle_s"]["thermal"] == 0
    assert gpu["ecc_corrected_errors"] == gpu["row_remaps_corrected"] == 0
    assert gpu["xid_errors"] == []
    assert seen["live"] == {"gpu_util_percent": 40, "power_w": 100, "memory_used_bytes": 2**30}
    assert seen["training"]["gpu"]["power_w"]["mean"] == 100
    assert seen["validity"] == {"status": "ok", "causes": [], "not_checked": []}
    assert seen["warnings"] == {}
    assert seen["telemetry"]["available"]
    assert seen["telemetry"]["sampler"]["mode"] == mode
    assert all(capability["supported"] for capability in seen["telemetry"]["capabilities"].values())
    assert set(seen["columns"]) >= {"util_percent", "sm_util_percent", "power_w", "energy_j", "rss_bytes"}
    assert seen["host"]["rss_peak_bytes"] > 10_000_000
    facts = seen["facts"]
    assert facts["driver_version"] == "999.12.3"
    assert facts["cuda_driver_version"] == "13.2"
    assert facts["power_limit_w"] == 700
    assert facts["memory_total_bytes"] == 16 * 2**30


def test_observation_ramp_gives_the_mean_of_its_time(watched: Watched) -> None:
    """Utilization 5 %/s since an origin: the mean over an interval is the value in its middle."""
    probe = watched(rows=1)
    origin_s = probe["origin_s"]
    seen = watched(rows=120, ramp=f"{origin_s}:5", samples="epoch")
    offset_s = seen["origin_s"] - origin_s
    gpu = seen["gpu"]
    middle_s = (seen["start_s"] + seen["middle_s"]) / 2 + offset_s
    # An instant stands for the time since the one before it, half an interval late on average.
    assert gpu["power_w"]["mean"] == pytest.approx(50 * middle_s, abs=50 * 0.1)
    assert gpu["power_w"]["max"] <= 50 * (seen["middle_s"] + offset_s + 0.1)
    # The buffered samples lie inside the interval, and so do the windows of the polled averages.
    assert gpu["util_percent"]["mean"] == pytest.approx(5 * middle_s, abs=2.0)
    assert seen["telemetry"]["capabilities"]["util_percent"]["source"] == "nvmlDeviceGetSamples"


@pytest.mark.parametrize("clock", ["epoch", "boot"])
def test_utilization_working_buffer_replaces_polling(clock: str, watched: Watched) -> None:
    seen = watched(rows=120, samples=clock)
    capability = seen["telemetry"]["capabilities"]["util_percent"]
    assert capability["source"] == "nvmlDeviceGetSamples"
    assert capability["window_s"] == pytest.approx(1 / 6, abs=0.001)
    assert seen["gpu"]["util_percent"]["mean"] == 40
    # One sample every sixth of a second, and none of the idle time before the job.
    assert seen["gpu"]["util_percent"]["n"] == pytest.approx(6 * seen["seconds"], abs=3)


@pytest.mark.parametrize("samples", ["empty", "odd"])
def test_utilization_broken_buffer_leaves_polling(samples: str, watched: Watched) -> None:
    seen = watched(rows=100, samples=samples)
    assert seen["telemetry"]["capabilities"]["util_percent"]["source"] == "nvmlDeviceGetUtilizationRates"
    assert seen["gpu"]["util_percent"]["mean"] == 40


def test_utilization_phase_shorter_than_its_window_is_null(watched: Watched) -> None:
    """The phase is shorter than the window of ``utilization.gpu``: whatever it says is partly about before."""
    seen = watched(rows=40, span_s=0.7)
    assert seen["gpu"]["util_percent"] is None
    assert "short" in seen["reasons"]["phases[].gpu.util_percent"]
    assert seen["gpu"]["power_w"]["quality"] == "insufficient"


def test_gpm_on_ampere_is_null_with_reason(watched: Watched) -> None:
    seen = watched(gpm="0")
    assert all(seen["gpu"][name] is None for name in GPM)
    assert "this GPU does not offer it" in seen["reasons"]["phases[].gpu.sm_util_percent"]
    assert not seen["telemetry"]["capabilities"]["sm_util_percent"]["supported"]
    assert seen["gpu"]["power_w"]["mean"] == 100


def test_gpm_nan_metric_is_null_alone(watched: Watched) -> None:
    seen = watched(nan="1", rows=60)
    assert seen["gpu"]["pcie_rx_bytes_per_s"] is None
    assert "nan" in seen["reasons"]["phases[].gpu.pcie_rx_bytes_per_s"]
    assert seen["gpu"]["pcie_tx_bytes_per_s"]["mean"] == 8 * 2**20


def test_observation_driver_of_2020_uses_older_sources(old_nvml: Path, watched: Watched) -> None:
    seen = watched(library=old_nvml, rows=120)
    gpu = seen["gpu"]
    # Its power is an average over a second, as its utilization is.
    assert seen["telemetry"]["capabilities"]["power_w"]["source"] == "nvmlDeviceGetPowerUsage"
    assert gpu["power_w"]["mean"] == 100
    assert gpu["util_percent"]["mean"] == 40
    assert gpu["energy_source"] == "nvmlDeviceGetTotalEnergyConsumption"
    assert gpu["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.05)
    assert gpu["temperature_c"]["mean"] == 50
    assert gpu["memory_used_peak_bytes"] == 2**30
    # Throttling is polled.
    assert gpu["throttle_s"] == dict.fromkeys(THROTTLING_POLLED, 0)
    for name in ("memory_reserved_bytes", "sm_util_percent", "xid_errors", "ecc_corrected_errors"):
        assert gpu[name] is None
        assert "the driver is too old" in seen["reasons"][f"phases[].gpu.{name}"]


def test_energy_without_counter_is_power_times_time(watched: Watched) -> None:
    names = ("UtilizationRates", "FieldValues", "TotalEnergyConsumption", "ClockInfo", "MemoryInfo", "MemoryInfo_v2")
    seen = watched(fail=",".join(_fail(f"nvmlDeviceGet{name}", 3) for name in names), gpm="0", rows=120)
    gpu = seen["gpu"]
    assert gpu["power_w"]["mean"] == 100
    assert gpu["energy_source"] == "power x time"
    assert gpu["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.01)
    for name in ("util_percent", "sm_clock_hz", "memory_used_peak_bytes", "pcie_tx_bytes"):
        assert gpu[name] is None
        assert "this GPU does not offer it" in seen["reasons"][f"phases[].gpu.{name}"]


def test_energy_32_bit_counter_wraps_without_loss(watched: Watched) -> None:
    """It starts 50 J, half a second, before 2**32 mJ."""
    seen = watched(rows=100, energy32=str(2**32 - 50_000))
    assert seen["gpu"]["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.05)


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_facts_nvml_answers_late_are_there_in_the_end(mode: str, watched: Watched) -> None:
    seen = watched(mode=mode, timeout_s=0.1, delay="nvmlSystemGetCudaDriverVersion:1")
    assert seen["facts"]["uuid"] is seen["facts"]["driver_version"] is None
    facts = seen["late_facts"]
    assert facts["driver_version"] == "999.12.3"
    assert facts["uuid"] == "GPU-fake-0"
    assert facts["power_limit_w"] == 700


def test_facts_nvml_never_answers_keep_their_reason(watched: Watched) -> None:
    seen = watched(timeout_s=0.5, hang="nvmlSystemGetCudaDriverVersion:0", until="rss_bytes", rows=3)
    assert seen["late_facts"] == seen["facts"]
    assert "did not answer within" in seen["late_facts"]["null_reasons"]["devices[]"]


def test_observation_cpu_job_has_no_gpu(watched: Watched) -> None:
    seen = watched(device={"kind": "cpu", "index": 0, "name": "cpu"}, until="rss_bytes", rows=5)
    assert seen["gpu"] is None
    assert seen["reasons"]["phases[].gpu"] == "the job ran on the CPU"
    assert seen["facts"]["driver_version"] == "999.12.3"
    assert seen["validity"]["status"] == "ok"


def test_observation_cpu_job_with_watched_gpu_warns(watched: Watched) -> None:
    device = {"kind": "cpu", "index": 0, "name": "cpu"}
    seen = watched(device=device, variables={"MNIST_JOBS_WATCH_GPU": "GPU-fake-0"})
    assert seen["gpu"]["power_w"]["mean"] == 100
    assert "not used" in seen["warnings"]["watched_gpu_not_used"]


def test_observation_watched_gpu_with_typo_is_an_error(watched: Watched) -> None:
    """The only GPU is not the one that the user named."""
    device = {"kind": "cpu", "index": 0, "name": "cpu"}
    variables = {"MNIST_JOBS_WATCH_GPU": "GPU-fake-O", "CUDA_VISIBLE_DEVICES": "GPU-fake-0"}
    seen = watched(device=device, variables=variables, until="rss_bytes", rows=5)
    assert seen["gpu"] is None
    assert seen["warnings"].keys() == {"watched_gpu_not_found"}
    assert "MNIST_JOBS_WATCH_GPU names 'GPU-fake-O'" in seen["warnings"]["watched_gpu_not_found"]
    assert seen["watch_error"] == seen["warnings"]["watched_gpu_not_found"]
    assert seen["facts"]["driver_version"] == "999.12.3"


def test_observation_watched_gpu_that_answers_late_is_no_error(watched: Watched) -> None:
    device = {"kind": "cpu", "index": 0, "name": "cpu"}
    late = {"timeout_s": 0.1, "delay": "nvmlSystemGetCudaDriverVersion:1"}
    seen = watched(device=device, variables={"MNIST_JOBS_WATCH_GPU": "GPU-fake-0"}, **late)
    assert seen["watch_error"] is None
    assert seen["gpu"]["power_w"]["mean"] == 100
    assert "not used" in seen["warnings"]["watched_gpu_not_used"]
    assert "watched_gpu_not_found" not in seen["warnings"]


def test_observation_mode_off_reads_nothing(watched: Watched) -> None:
    seen = watched(mode="off", longest_s=0)
    assert seen["gpu"] is None
    assert seen["host"] is None
    reasons = seen["reasons"] | seen["facts"]["null_reasons"]
    for path in ("phases[].gpu", "phases[].host", "telemetry.sampler.cpu_s", "devices[]", "environment.driver_version"):
        assert "--telemetry off" in reasons[path]
    assert seen["telemetry"]["sampler"]["mode"] == "off"
    assert seen["validity"]["status"] == "unchecked"
    assert seen["warnings"] == {}


def test_observation_without_library_has_host_figures(watched: Watched) -> None:
    seen = watched(library=None, until="rss_bytes", rows=12)
    assert seen["gpu"] is None
    assert "NVML Shared Library Not Found: no NVIDIA driver here" in seen["reasons"]["phases[].gpu"]
    assert seen["host"]["rss_peak_bytes"] > 0
    assert seen["host"]["cpu_percent"]["mean"] >= 0
    assert "--gpus all" in seen["facts"]["null_reasons"]["environment.driver_version"]
    assert seen["validity"]["status"] == "unchecked"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reload the driver or restart the node"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "load the NVIDIA driver on the host"),
        (pynvml.NVML_ERROR_UNKNOWN, "restart the container"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "may not read it"),
    ],
)
def test_nvml_failed_start_says_what_to_do(code: int, words: str, watched: Watched) -> None:
    seen = watched(fail=_fail("nvmlInitWithFlags", code) + "," + _fail("nvmlInit_v2", code), longest_s=0.1)
    assert seen["gpu"] is None
    assert words in seen["reasons"]["phases[].gpu"]


def test_metric_not_supported_leaves_the_others(watched: Watched) -> None:
    seen = watched(fail=_fail("nvmlDeviceGetUtilizationRates", pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert seen["gpu"]["util_percent"] is None
    assert seen["gpu"]["power_w"]["mean"] == 100
    capability = seen["telemetry"]["capabilities"]["util_percent"]
    assert not capability["supported"]
    assert "this GPU does not offer it" in capability["error"]
    assert "this GPU does not offer it" in seen["reasons"]["phases[].gpu.util_percent"]


def test_field_value_with_error_leaves_the_others(watched: Watched) -> None:
    seen = watched(field_fail="75:3,83:4", rows=60)
    assert "thermal" not in seen["gpu"]["throttle_s"]
    assert seen["gpu"]["throttle_s"]["power_cap"] == 0
    # It may be permitted again, so no other counter takes its place; power times time does.
    assert seen["gpu"]["energy_source"] == "power x time"
    assert "may not read it" in seen["telemetry"]["capabilities"]["energy_j"]["error"]


def test_metric_permission_lost_keeps_earlier_readings(watched: Watched) -> None:
    lost = _fail("nvmlDeviceGetClockInfo", pynvml.NVML_ERROR_NO_PERMISSION, 20)
    seen = watched(rows=60, fail=lost)
    gpu = seen["gpu"]
    assert gpu["sm_clock_hz"]["n"] <= 10
    assert gpu["sm_clock_hz"]["quality"] == "insufficient"
    assert gpu["power_w"]["n"] > 50
    assert "may not read it" in seen["telemetry"]["capabilities"]["sm_clock_hz"]["error"]


def test_gpu_lost_keeps_earlier_readings(watched: Watched) -> None:
    lost = pynvml.NVML_ERROR_GPU_IS_LOST
    names = ("UtilizationRates", "PowerUsage", "TotalEnergyConsumption", "MemoryInfo", "MemoryInfo_v2", "FieldValues")
    rules = [_fail(f"nvmlDeviceGet{name}", lost, 30) for name in names] + [_fail("nvmlGpmSampleGet", lost, 2)]
    seen = watched(rows=100, until="sm_clock_hz", fail=",".join(rules))
    gpu = seen["gpu"]
    assert gpu["power_w"]["max"] == 100
    assert gpu["power_w"]["coverage_ratio"] < 0.6
    assert gpu["energy_j"] is None
    assert gpu["energy_from_power_j"] is None
    assert "drain the node" in seen["reasons"]["phases[].gpu.energy_j"]


def test_counters_phase_before_first_reading_is_null(watched: Watched) -> None:
    """Start-up was over before the first reading: its energy and errors are unknown, not 0."""
    seen = watched(rows=20)
    startup = seen["startup"]
    for name in ("energy_j", "ecc_corrected_errors", "pcie_tx_bytes", "throttle_s"):
        assert startup[name] is None
        assert "not read at both ends" in seen["reasons"][f"phases[].gpu.{name}"]


def test_observation_unreadable_readings_are_null_with_reason() -> None:
    """A run that was trained is reported, whatever the sampler has sent."""
    watch = monitor.watch(clock=Clock(), options=Options(mode="off"))
    watch._store.handle({"kind": "samples", "samples": [], "status": {"power_w": ["a source", "no number", None]}})
    observation = watch.stop([Span(name="train", epoch=1, start_s=0.0, end_s=1.0)])
    assert observation.gpu == (None,)
    assert observation.host == (None,)
    assert "could not be aggregated" in observation.null_reasons["phases[].host"]
    assert "telemetry_failed" in {warning.code for warning in observation.warnings}
