"""Throttling is read right from each generation of drivers, which number its counters differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.telemetry.validity import SLOWDOWN_CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTED = "NVML_FI_DEV_CLOCKS_EVENT_REASON_"
POLLED = "nvmlDeviceGetCurrentClocksEventReasons"
DRIVERS = {
    "570": ("570.124.06", POLLED),
    "575": ("575.57.08", COUNTED),
    "580": ("580.65.06", COUNTED),
    "580.82": ("580.82.07", COUNTED),
    "590": ("590.48.01", COUNTED),
}
"""The driver's version, and how a slowdown is read; the stand-in's header names the lines of nvml.h that it follows."""

Case = tuple[str, str]
SCRIPTS: dict[Case, dict[str, Any]] = {
    (driver, cause): {"script": {"DRIVER": driver, "CAUSE": cause, "THROTTLE": "0.5"}}
    for driver in DRIVERS
    for cause in SLOWDOWN_CAUSES
} | {
    ("a function is missing in the binding", ""): {
        "until": "power_w",
        "without": ["nvmlDeviceGetClockInfo"],
    },
    ("a field is missing in the binding", ""): {
        "without": ["NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "NVML_FI_DEV_ECC_DBE_VOL_TOTAL"],
    },
    ("another field was answered", ""): {"script": {"FIELD_OTHER": "83"}},
    ("no version", ""): {"script": {"FAIL": "nvmlSystemGetNVMLVersion:13:0"}},
    ("no state", ""): {
        "script": {"DRIVER": "570", "FAIL": f"{POLLED}:3:0,nvmlDeviceGetCurrentClocksThrottleReasons:3:0"},
    },
}


@pytest.fixture(scope="module")
def answers(observed: Callable[..., dict[Case, dict[str, Any]]]) -> dict[Case, dict[str, Any]]:
    return observed(SCRIPTS)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("cause", SLOWDOWN_CAUSES)
def test_throttling_any_driver_is_seen(driver: str, cause: str, answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers[driver, cause]
    version, source = DRIVERS[driver]
    assert seen["facts"]["driver_version"] == version
    assert seen["gpu"]["throttle_s"][cause] == pytest.approx(0.5 * seen["seconds"], rel=0.4)
    others = set(SLOWDOWN_CAUSES) - {cause}
    assert {seen["gpu"]["throttle_s"][other] for other in others} == {0}
    assert seen["validity"]["status"] == "suspect"
    assert seen["validity"]["causes"] == ["gpu_throttled"]
    assert seen["validity"]["not_checked"] == []
    assert seen["capabilities"][f"throttle_s.{cause}"]["source"].startswith(source)


def test_throttling_neither_counted_nor_polled_is_named(answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers["no state", ""]
    assert seen["gpu"]["throttle_s"].keys() == {"power_cap", "thermal", "sync_boost", "board_limit", "reliability"}
    assert seen["validity"]["status"] == "unchecked"
    assert seen["validity"]["not_checked"] == [f"throttling by {cause}" for cause in SLOWDOWN_CAUSES]
    assert "NVML 12.570.124.06" in seen["capabilities"]["throttle_s.hw_thermal"]["error"]


def test_throttling_unknown_version_is_polled(answers: dict[Case, dict[str, Any]]) -> None:
    capability = answers["no version", ""]["capabilities"]["throttle_s.hw_thermal"]
    assert capability["source"] == POLLED
    assert "the driver is too old" in capability["error"]


def test_metric_name_missing_in_the_binding_leaves_the_others(answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers["a function is missing in the binding", ""]
    assert "nvmlDeviceGetClockInfo" in seen["capabilities"]["sm_clock_hz"]["error"]
    assert seen["capabilities"]["power_w"]["supported"]
    assert seen["gpu"]["energy_j"] > 0
    seen = answers["a field is missing in the binding", ""]
    assert "ECC_DBE_VOL_TOTAL" in seen["capabilities"]["ecc_uncorrected_errors"]["error"]
    assert seen["capabilities"]["ecc_corrected_errors"]["supported"]


def test_field_other_than_asked_for_is_not_used(answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers["another field was answered", ""]
    assert "did not answer" in seen["capabilities"]["energy_j"]["error"]
    assert seen["capabilities"]["ecc_corrected_errors"]["supported"]
