"""Warnings and the verdict on a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.report.schema import Aggregate, GpuPhase, HostPhase, RunWarning, TrainingSummary
from jobs.telemetry.validity import assess_validity, training_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    Watched = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ({"throttle": "0.2"}, "gpu_throttled", "% of training (thermal)"),
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


def test_validity_little_throttling_is_ok(watched: Watched) -> None:
    seen = watched(rows=80, throttle="0.03", processes="0")
    assert seen["validity"]["status"] == "ok"
    assert seen["gpu"]["throttle_s"]["thermal"] == pytest.approx(0.03 * seen["seconds"], rel=0.1)


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
    read = _pooled(throttle_s={"thermal": 0.0}, ecc_uncorrected_errors=0, xid_errors=[])
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
    found = assess_validity(on_gpu=True, training=_pooled(throttle_s={"thermal": 0.0}), warnings=[])
    assert found.status == "ok"
    assert found.not_checked == ["memory errors", "XID errors"]
