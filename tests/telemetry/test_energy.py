"""Energy and power are true, or null with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CASES: dict[str, dict[str, Any]] = {
    "stands still": {"script": {"ENERGY": "still"}, "rows": 150},
    "stands still for a short time": {"script": {"ENERGY": "still"}},
    "moves in a short time": {"rows": 60},
    "stops": {"script": {"ENERGY": "stop:0.3"}, "rows": 150},
    "goes back": {"script": {"ENERGY": "back:0.2"}, "rows": 40},
    "goes back, 32 bits": {"script": {"ENERGY": "back:0.2", "ENERGY32": "1000000"}, "rows": 40},
    # As if it had wrapped, with more than a million joules between.
    "goes back from near its end": {"script": {"ENERGY": "back:0.2", "ENERGY32": str(3 * 2**30)}, "rows": 400},
    "wraps": {"script": {"ENERGY32": str(2**32 - 40_000)}, "rows": 150},
    "average power only": {"script": {"FIELD_FAIL": "186:3"}, "rows": 150},
    "A100": {"script": {"CAPABILITY": "8.0"}},
    "A100, no field of power": {"script": {"FIELD_FAIL": "186:3", "CAPABILITY": "8.0"}},
    "A10, no field of power": {"script": {"FIELD_FAIL": "185:3,186:3", "CAPABILITY": "8.6"}, "rows": 150},
    "an unknown GPU, no field of power": {
        "script": {"FIELD_FAIL": "185:3,186:3", "FAIL": "nvmlDeviceGetCudaComputeCapability:999:0"},
        "rows": 150,
    },
    "no power": {"script": {"FIELD_FAIL": "185:3,186:3", "FAIL": "nvmlDeviceGetPowerUsage:3:0"}, "rows": 150},
}
"""Power is 100 W."""


@pytest.fixture(scope="module")
def answers(observed: Callable[..., dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return observed(CASES)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("stands still", "stood still, though a GPU always draws power"),
        ("stands still for a short time", "in steps of about 0.1 s, too coarse for less than 1 s"),
        ("moves in a short time", "in steps of about 0.1 s, too coarse for less than 1 s"),
        ("stops", "one of them is wrong"),
        ("goes back", "the counter was reset"),
        ("goes back, 32 bits", "the counter was reset"),
        ("goes back from near its end", "one of them is wrong"),
    ],
)
def test_energy_of_a_wrong_counter_is_null(case: str, words: str, answers: dict[str, dict[str, Any]]) -> None:
    seen = answers[case]
    for name in ("energy_j", "energy_source"):
        assert seen["gpu"][name] is None
        assert words in seen["reasons"][f"phases[].gpu.{name}"]
    # It is not put into energy_j without a word.
    assert seen["gpu"]["energy_from_power_j"] == pytest.approx(100 * seen["seconds"], rel=0.1)


def test_energy_of_a_counter_that_wraps_is_whole(answers: dict[str, dict[str, Any]]) -> None:
    seen = answers["wraps"]
    assert seen["gpu"]["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.1)


@pytest.mark.parametrize(
    ("case", "source"),
    [
        ("average power only", "NVML_FI_DEV_POWER_AVERAGE"),
        ("A10, no field of power", "nvmlDeviceGetPowerUsage"),
        ("an unknown GPU, no field of power", "nvmlDeviceGetPowerUsage"),
    ],
)
def test_power_without_instant_value_is_an_average(case: str, source: str, answers: dict[str, dict[str, Any]]) -> None:
    """As where a GPU gives only the mean over the last second: the phase's first second has no reading."""
    seen = answers[case]
    capability = seen["capabilities"]["power_w"]
    assert capability["source"] == source
    assert capability["window_s"] == 1.0
    assert seen["gpu"]["power_w"]["mean"] == 100
    assert seen["gpu"]["power_w"]["n"] < 100
    assert seen["gpu"]["energy_source"] == "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


@pytest.mark.parametrize(
    ("case", "source"),
    [("A100", "NVML_FI_DEV_POWER_INSTANT"), ("A100, no field of power", "nvmlDeviceGetPowerUsage")],
)
def test_power_of_an_a100_is_an_instant(case: str, source: str, answers: dict[str, dict[str, Any]]) -> None:
    """nvml.h: GA100 has no average, and ``nvmlDeviceGetPowerUsage`` is an instant there. So each reading counts."""
    seen = answers[case]
    capability = seen["capabilities"]["power_w"]
    assert capability["source"] == source
    assert capability["window_s"] is None
    assert seen["gpu"]["power_w"]["mean"] == 100
    assert seen["gpu"]["power_w"]["n"] >= 15


def test_power_not_offered_is_null_with_reason(answers: dict[str, dict[str, Any]]) -> None:
    seen = answers["no power"]
    assert seen["gpu"]["power_w"] is seen["gpu"]["energy_from_power_j"] is None
    assert "does not offer it" in seen["reasons"]["phases[].gpu.power_w"]
    assert seen["gpu"]["energy_j"] == pytest.approx(100 * seen["seconds"], rel=0.1)
