"""Throttling is read right from each generation of drivers, which number its counters differently."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from jobs.telemetry.sampler import nvml
from jobs.telemetry.validity import SLOWDOWN_CAUSES
from tests.support.fake_nvml import SOURCE
from tests.support.programs import ROOT

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

COUNTED_CAUSES = ("sw_thermal", "hw_thermal", "hw_power_brake")
NO_STATE = f"{POLLED}:3:0,nvmlDeviceGetCurrentClocksThrottleReasons:3:0"

Case = tuple[str, str]
SCRIPTS: dict[Case, dict[str, Any]] = (
    {
        (driver, cause): {"script": {"DRIVER": driver, "CAUSE": cause, "THROTTLE": "0.5"}}
        for driver in DRIVERS
        for cause in SLOWDOWN_CAUSES
    }
    | {
        # The counters alone: a wrong field id gives nothing.
        (driver, f"{cause}, counted"): {
            "script": {"DRIVER": driver, "CAUSE": cause, "THROTTLE": "0.5", "FAIL": NO_STATE},
        }
        for driver, (_, source) in DRIVERS.items()
        for cause in COUNTED_CAUSES
        if source == COUNTED
    }
    | {
        ("the counters stand still", ""): {"script": {"CAUSE": "hw_thermal", "THROTTLE": "0.5", "COUNTED": "0"}},
        ("a function is missing in the binding", ""): {
            "until": "power_w",
            "rows": 150,
            "without": ["nvmlDeviceGetClockInfo"],
        },
        ("a field is missing in the binding", ""): {
            "without": ["NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "NVML_FI_DEV_ECC_DBE_VOL_TOTAL"],
        },
        ("other constants are missing in the binding", ""): {
            "until": "tensor_util_percent",
            "rows": 2,
            "without": ["NVML_GPM_METRIC_SM_UTIL", "NVML_GPU_UTILIZATION_SAMPLES"],
        },
        ("another field was answered", ""): {"script": {"FIELD_OTHER": "83"}},
        ("no version", ""): {"script": {"FAIL": "nvmlSystemGetNVMLVersion:13:0"}},
        ("no state", ""): {"script": {"DRIVER": "570", "FAIL": NO_STATE}},
    }
)


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
    # The bit of any slowdown by hardware comes with these two.
    by_hardware = {"hw_slowdown"} if cause in {"hw_thermal", "hw_power_brake"} else set()
    others = set(SLOWDOWN_CAUSES) - {cause} - by_hardware
    assert {seen["gpu"]["throttle_s"][other] for other in others} == {0}
    assert seen["validity"]["status"] == "suspect"
    assert seen["validity"]["causes"] == ["gpu_throttled"]
    assert seen["validity"]["not_checked"] == []
    # Software's thermal slowdown is also counted as the policy "thermal".
    assert f"({cause})" in seen["warnings"]["gpu_throttled"] or cause == "sw_thermal"
    source = POLLED if cause == "hw_slowdown" else source
    assert seen["capabilities"][f"throttle_s.{cause}"]["source"].startswith(source)


@pytest.mark.parametrize("driver", [driver for driver, (_, source) in DRIVERS.items() if source == COUNTED])
@pytest.mark.parametrize("cause", COUNTED_CAUSES)
def test_throttling_counter_of_any_driver_is_that_of_the_cause(
    driver: str, cause: str, answers: dict[Case, dict[str, Any]]
) -> None:
    """Nothing can be polled, so a wrong field id shows."""
    seen = answers[driver, f"{cause}, counted"]
    assert seen["gpu"]["throttle_s"][cause] == pytest.approx(0.5 * seen["seconds"], rel=0.2)
    assert {seen["gpu"]["throttle_s"][other] for other in set(COUNTED_CAUSES) - {cause}} == {0}
    assert seen["validity"]["not_checked"] == ["throttling by hw_slowdown"]


def test_throttling_counter_that_stands_still_is_not_believed(answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers["the counters stand still", ""]
    assert seen["gpu"]["throttle_s"]["hw_thermal"] == pytest.approx(0.5 * seen["seconds"], rel=0.4)
    assert seen["validity"]["causes"] == ["gpu_throttled"]


def test_docs_table_of_drivers_is_that_of_the_stand_in() -> None:
    rows = re.findall(r'\{"[\d.]+", "([\d.]+)", "([\d.]+)", (\d+), (\d+)\}', SOURCE.read_text())
    assert len(rows) == len(DRIVERS)
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    for driver, library, slowdowns, smoothing in rows:
        first, power = int(slowdowns), int(smoothing)
        counted = f"{first} to {first + 2}" if first else "none: polled"
        assert f"| {driver} | {library} | {counted} | {power} to {power + 17} |" in text


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("12.550.163.01", None),
        ("12.575.51.03", 252),
        ("13.580.65", 252),
        # No header and no binding says which ids these have.
        ("13.580.76.05", None),
        ("13.580.105.08", 270),
        ("13.610.43.02", 270),
        ("13", None),
        ("unknown", None),
    ],
)
def test_field_id_any_version_is_known_or_refused(
    version: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlSystemGetNVMLVersion", lambda: version)
    answer = nvml.try_call(nvml.field_id, nvml.SLOWDOWN_FIELDS[1])
    if expected is None:
        assert isinstance(answer, nvml.NvmlUnavailable)
        assert answer.is_permanent
    else:
        assert answer == expected
    # All others have the ids of the binding.
    assert nvml.field_id("NVML_FI_DEV_POWER_INSTANT") == pynvml.NVML_FI_DEV_POWER_INSTANT


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

    seen = answers["other constants are missing in the binding", ""]
    assert "SM_UTIL" in seen["capabilities"]["sm_util_percent"]["error"]
    assert seen["capabilities"]["tensor_util_percent"]["supported"]
    assert seen["gpu"]["tensor_util_percent"]["mean"] == 2
    assert seen["capabilities"]["memory_util_percent"]["supported"]


def test_field_other_than_asked_for_is_not_used(answers: dict[Case, dict[str, Any]]) -> None:
    seen = answers["another field was answered", ""]
    assert "did not answer" in seen["capabilities"]["energy_j"]["error"]
    assert seen["capabilities"]["ecc_corrected_errors"]["supported"]
