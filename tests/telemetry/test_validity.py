"""Warnings and the verdict on a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.report.schema import Aggregate, GpuPhase, HostPhase, RunWarning, TrainingSummary
from jobs.telemetry.validity import SLOWDOWN_CAUSES, VOLTAGE_LIMITS, assess_validity, training_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    Watched = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ({"throttle": "0.2"}, "gpu_throttled", "thermal)"),
        ({"ecc": "50"}, "gpu_ecc_errors", "corrected"),
        ({"xid": "79"}, "gpu_xid_errors", "XID 79"),
        ({"processes": "3"}, "gpu_other_processes", "3 other compute processes"),
    ],
)
def test_validity_disturbed_training_is_suspect(
    script: dict[str, str], code: str, words: str, watched: Watched
) -> None:
    seen = watched(rows=80, **script)
    assert seen["validity"]["status"] == "suspect"
    assert seen["validity"]["causes"] == [code]
    assert words in seen["warnings"][code]


def test_validity_busy_gpu_before_start_is_suspect(watched: Watched) -> None:
    seen = watched(busy="1", rows=5)
    assert seen["validity"]["causes"] == ["gpu_busy_before_start", "gpu_memory_in_use_before_start"]
    assert "1.0 GiB" in seen["warnings"]["gpu_memory_in_use_before_start"]
    assert "40 %" in seen["warnings"]["gpu_busy_before_start"]


NO_DEFAULT_LIMIT = {"FAIL": "nvmlDeviceGetPowerManagementDefaultLimit:3:0"}

CASES: dict[str, dict[str, Any]] = {
    # The first, since the stand-in counts these seconds from the last time that telemetry attached.
    "lost": {"script": {"GONE": "0.3:1.1"}, "rows": 60},
    "own power limit": {"script": {"THROTTLE": "1", "CAUSE": "power_cap"}, "rows": 60},
    "lowered power limit": {"script": {"THROTTLE": "1", "CAUSE": "power_cap", "DEFAULT_LIMIT": "800"}},
    "board_limit": {"script": {"THROTTLE": "1", "CAUSE": "board_limit"}, "rows": 60},
    "reliability": {"script": {"THROTTLE": "1", "CAUSE": "reliability"}, "rows": 60},
    "sync_boost": {"script": {"THROTTLE": "1", "CAUSE": "sync_boost"}},
    "unknown default of the power limit": {"script": {"THROTTLE": "1", "CAUSE": "power_cap"} | NO_DEFAULT_LIMIT},
    "unknown default, limit not reached": {"script": NO_DEFAULT_LIMIT},
    "hw_slowdown": {"script": {"THROTTLE": "1", "CAUSE": "hw_slowdown"}, "rows": 60},
    "own process": {"script": {"OWN": "job"}},
    "own process in a container": {"script": {"OWN": "4711"}, "container": True},
    "MPS": {"script": {"OWN": "job", "MPS": "31"}},
    "MPS in a container": {"script": {"OWN": "4711", "MPS": "31", "NAMES": "0"}, "container": True},
    "MPS before Volta": {"script": {"MPS": "31", "FAIL": "nvmlDeviceGetMPSComputeRunningProcesses_v3:3:0"}},
    "another client of MPS": {"script": {"OWN": "job", "MPS": "31", "MPS_OTHERS": "1"}},
    "another process beside MPS": {"script": {"OWN": "job", "MPS": "31", "PROCESSES": "1"}},
    "two processes in a container": {"script": {"OWN": "4711", "PROCESSES": "1", "NAMES": "0"}, "container": True},
    "another process": {"script": {"OWN": "job", "PROCESSES": "1"}},
    "another process, the job is not listed": {"script": {"PROCESSES": "1"}},
    "container with ids of its own": {"script": {"OWN": "job", "PROCESSES": "1", "NAMESPACE": "1"}, "container": True},
    "container, no process listed": {"container": True},
    "processes cannot be listed": {"script": {"FAIL": "nvmlDeviceGetComputeRunningProcesses_v3:3:0"}},
}


@pytest.fixture(scope="module")
def answers(observed: Callable[..., dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return observed(CASES)


def test_validity_own_power_limit_is_ok(answers: dict[str, dict[str, Any]]) -> None:
    """A T4 holds its limit of 70 W in every run."""
    seen = answers["own power limit"]
    assert seen["gpu"]["throttle_s"]["power_cap"] == pytest.approx(seen["seconds"], rel=0.1)
    assert seen["validity"] == {"status": "ok", "causes": [], "not_checked": []}
    assert "normal under load" in seen["warnings"]["gpu_at_power_limit"]


def test_validity_lowered_power_limit_is_suspect(answers: dict[str, dict[str, Any]]) -> None:
    seen = answers["lowered power limit"]
    assert seen["validity"]["causes"] == ["gpu_throttled"]
    assert "a power limit below the board's default" in seen["warnings"]["gpu_throttled"]


def test_validity_power_limit_lowered_during_the_run_is_suspect(watched: Watched) -> None:
    seen = watched(throttle="1", cause="power_cap", limits="700,300")
    assert seen["facts"]["power_limit_w"] == 700
    assert seen["validity"]["causes"] == ["gpu_throttled"]


def test_validity_power_limit_with_unknown_default_is_unchecked_where_it_was_reached(
    answers: dict[str, dict[str, Any]],
) -> None:
    seen = answers["unknown default of the power limit"]
    assert seen["validity"]["status"] == "unchecked"
    assert seen["validity"]["not_checked"] == ["throttling by a lowered power limit"]
    assert "whether someone lowered the limit is not known" in seen["warnings"]["gpu_at_power_limit"]
    assert answers["unknown default, limit not reached"]["validity"] == {
        "status": "ok",
        "causes": [],
        "not_checked": [],
    }


def test_validity_slowdown_that_no_counter_has_is_suspect(answers: dict[str, dict[str, Any]]) -> None:
    """Fast Trigger protection: only the bit of any slowdown by hardware is set."""
    seen = answers["hw_slowdown"]
    assert seen["gpu"]["throttle_s"]["hw_slowdown"] == pytest.approx(seen["seconds"], rel=0.1)
    assert seen["validity"]["causes"] == ["gpu_throttled"]
    assert "(hw_slowdown)" in seen["warnings"]["gpu_throttled"]


@pytest.mark.parametrize("limit", VOLTAGE_LIMITS)
def test_validity_own_voltage_limit_is_ok(limit: str, answers: dict[str, dict[str, Any]]) -> None:
    """A GPU that neither power nor heat limits runs at the highest clocks that its voltage allows."""
    seen = answers[limit]
    assert seen["gpu"]["throttle_s"][limit] == pytest.approx(seen["seconds"], rel=0.1)
    assert seen["validity"] == {"status": "ok", "causes": [], "not_checked": []}
    assert seen["warnings"].keys() == {"gpu_at_voltage_limit"}
    assert f"({limit}), which is normal" in seen["warnings"]["gpu_at_voltage_limit"]


def test_validity_held_back_by_another_gpu_is_suspect(answers: dict[str, dict[str, Any]]) -> None:
    seen = answers["sync_boost"]
    assert seen["validity"]["causes"] == ["gpu_throttled"]
    assert "(sync_boost)" in seen["warnings"]["gpu_throttled"]


def test_validity_gpu_lost_for_a_part_of_training_is_unchecked(answers: dict[str, dict[str, Any]]) -> None:
    seen = answers["lost"]
    # The counters were read at both ends.
    assert seen["gpu"]["throttle_s"] is not None
    assert seen["gpu"]["power_w"]["coverage_ratio"] < 0.7
    assert "% of training" in seen["warnings"]["gpu_not_read"]
    assert seen["validity"]["status"] == "unchecked"


@pytest.mark.parametrize("case", ["MPS", "MPS in a container", "MPS before Volta"])
def test_validity_mps_server_is_named_and_not_another_process(case: str, answers: dict[str, dict[str, Any]]) -> None:
    """It is listed beside the job, or in its place."""
    seen = answers[case]
    assert seen["validity"]["status"] == "ok"
    assert seen["warnings"].keys() == {"gpu_mps_server"}
    assert "NVIDIA's MPS server" in seen["warnings"]["gpu_mps_server"]


@pytest.mark.parametrize("case", ["another client of MPS", "another process beside MPS"])
def test_validity_other_work_beside_mps_is_suspect(case: str, answers: dict[str, dict[str, Any]]) -> None:
    seen = answers[case]
    assert seen["validity"]["causes"] == ["gpu_other_processes"]
    assert seen["warnings"]["gpu_other_processes"] == "1 other compute process used the GPU"
    assert "gpu_mps_server" in seen["warnings"]


@pytest.mark.parametrize(
    ("case", "warnings"),
    [
        ("own process", set()),
        ("own process in a container", set()),
        ("another process", {"gpu_other_processes"}),
        ("another process, the job is not listed", {"gpu_other_processes"}),
        ("two processes in a container", {"gpu_other_processes"}),
    ],
)
def test_validity_own_process_under_a_foreign_number_is_not_another(
    case: str, warnings: set[str], answers: dict[str, dict[str, Any]]
) -> None:
    """An older driver gives the host's process ids. A container with a PID namespace knows its process by another."""
    seen = answers[case]
    assert seen["warnings"].keys() == warnings
    assert all(text.startswith("1 other compute process used") for text in seen["warnings"].values())
    assert seen["validity"]["not_checked"] == []


@pytest.mark.parametrize(
    "case", ["container with ids of its own", "container, no process listed", "processes cannot be listed"]
)
def test_validity_processes_that_are_not_listed_are_named(case: str, answers: dict[str, dict[str, Any]]) -> None:
    """A newer driver lists no process outside of the container."""
    assert answers[case]["validity"] == {"status": "ok", "causes": [], "not_checked": ["other processes"]}


@pytest.mark.parametrize("cause", SLOWDOWN_CAUSES)
def test_judge_one_unknown_slowdown_is_unchecked_and_named(cause: str) -> None:
    known = {name: 0.0 for name in SLOWDOWN_CAUSES if name != cause}
    training = _pooled(throttle_s=known, ecc_uncorrected_errors=0, xid_errors=[])
    judged = assess_validity(on_gpu=True, training=training, warnings=[])
    assert judged.status == "unchecked"
    assert judged.not_checked == [f"throttling by {cause}"]


def test_validity_little_throttling_is_ok(watched: Watched) -> None:
    seen = watched(rows=80, throttle="0.03", processes="0")
    assert seen["validity"]["status"] == "ok"
    assert seen["gpu"]["throttle_s"]["thermal"] == pytest.approx(0.03 * seen["seconds"], rel=0.1)


NOT_THROTTLED = dict.fromkeys(SLOWDOWN_CAUSES, 0.0)


def _mean(value: float, quality: str = "ok") -> Aggregate:
    return Aggregate.model_validate(
        {"mean": value, "p50": value, "p95": value, "max": value, "n": 100, "coverage_ratio": 1.0, "quality": quality}
    )


def _pooled(*, thread: float | None = None, throttled_s: float | None = None, **gpu: Any) -> TrainingSummary:
    fields = dict.fromkeys(GpuPhase.model_fields) | gpu
    host = HostPhase(
        cpu_percent=None,
        main_thread_percent=None if thread is None else _mean(thread),
        rss_peak_bytes=None,
        cgroup_throttled_s=throttled_s,
    )
    return TrainingSummary(duration_s=10.0, gpu=GpuPhase.model_validate(fields), host=host)


def _codes(pooled: TrainingSummary) -> set[str]:
    return {warning.code for warning in training_warnings(pooled)}


def test_warnings_gap_of_a_lost_gpu_is_not_covered_by_an_average() -> None:
    """Of 1.2 s the GPU was lost for 0.45 s; its power is an average over one."""
    clock = _mean(1e9).model_copy(update={"coverage_ratio": 0.62})
    lost = _pooled(power_w=_mean(100), sm_clock_hz=clock).model_copy(update={"duration_s": 1.2})
    assert {warning.code for warning in training_warnings(lost, has_lost_readings=True)} == {"gpu_not_read"}
    # A late reading is no lost GPU.
    assert _codes(lost) == set()
    assert _codes(lost.model_copy(update={"duration_s": 3.0})) == {"gpu_not_read"}


def test_warnings_slowdown_by_heat_is_named_by_its_cause() -> None:
    both = _pooled(throttle_s=NOT_THROTTLED | {"hw_thermal": 4.0, "hw_slowdown": 4.1})
    (warning,) = training_warnings(both)
    assert "(hw_thermal)" in warning.message


def test_warnings_idle_gpu_beside_busy_thread_waits_for_cpu() -> None:
    assert _codes(_pooled(thread=99, sm_util_percent=_mean(10))) == {"gpu_waits_for_cpu"}
    # utilization.gpu says busy where the SMs are nearly idle; GPM goes before it.
    assert _codes(_pooled(thread=99, util_percent=_mean(95), sm_util_percent=_mean(10))) == {"gpu_waits_for_cpu"}
    assert _codes(_pooled(thread=99, util_percent=_mean(95))) == set()
    assert _codes(_pooled(thread=40, sm_util_percent=_mean(10))) == set()


def test_warnings_energy_unlike_power_disagrees() -> None:
    power = _mean(100)
    agree = _pooled(power_w=power, energy_j=1050.0, energy_from_power_j=1000.0)
    differ = _pooled(power_w=power, energy_j=1200.0, energy_from_power_j=1000.0)
    short = _pooled(power_w=_mean(100, "insufficient"), energy_j=1200.0, energy_from_power_j=1000.0)
    assert _codes(agree) == _codes(short) == set()
    assert _codes(differ) == {"energy_disagrees"}


def test_warnings_cpu_quota_throttling_over_limit() -> None:
    assert _codes(_pooled(throttled_s=1.0)) == {"cpu_quota_throttled"}
    assert _codes(_pooled(throttled_s=0.4)) == set()


def test_judge_unread_gpu_is_unchecked() -> None:
    hint = [RunWarning(code="telemetry_in_thread", message="")]
    read = _pooled(throttle_s=NOT_THROTTLED, ecc_uncorrected_errors=0, xid_errors=[])
    assert assess_validity(on_gpu=True, training=None, warnings=hint).status == "unchecked"
    assert assess_validity(on_gpu=True, training=_pooled(), warnings=hint).status == "unchecked"
    assert assess_validity(on_gpu=True, training=read, warnings=hint).model_dump() == {
        "status": "ok",
        "causes": [],
        "not_checked": [],
    }
    assert assess_validity(on_gpu=False, training=_pooled(), warnings=hint).status == "ok"
    broken = [RunWarning(code="telemetry_died", message="")]
    assert assess_validity(on_gpu=True, training=read, warnings=broken).status == "unchecked"
    bad = [*hint, RunWarning(code="gpu_throttled", message="")]
    assert assess_validity(on_gpu=True, training=read, warnings=bad).causes == ["gpu_throttled"]


def test_judge_unread_memory_errors_are_listed() -> None:
    found = assess_validity(on_gpu=True, training=_pooled(throttle_s=NOT_THROTTLED), warnings=[])
    assert found.status == "ok"
    assert found.not_checked == ["memory errors", "XID errors"]
