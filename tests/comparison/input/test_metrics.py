from __future__ import annotations

from typing import Any

import pytest

from jobs.comparison.input.metrics import METRICS, Missing, null_reason
from tests.comparison.comparisons import as_run
from tests.support.reports import make_report

BY_NAME = {metric.name: metric for metric in METRICS}
UTIL = BY_NAME["gpu_util_percent"]


def aggregate(mean: float, *, coverage: float = 1.0, quality: str = "ok") -> dict[str, Any]:
    return {
        "mean": mean, "p50": mean, "p95": mean, "max": mean, "n": 9, "coverage_ratio": coverage, "quality": quality,
    }  # fmt: skip


def test_a_run_on_a_gpu_has_every_metric() -> None:
    report = make_report(gpu=True)
    assert {name: metric.measure(report) for name, metric in BY_NAME.items()} == {
        "steady_images_per_s": 10_000.0,
        "train_wall_s": 12.0,
        "test_accuracy_ratio": 0.95,
        "gpu_util_percent": pytest.approx(55.0),
        "gpu_power_w": pytest.approx(250.0),
        "gpu_energy_j": 300.0,
    }


def test_a_resumed_run_has_no_gpu_figures_since_its_report_has_the_last_attempt_s_only() -> None:
    earlier = {
        "attempt": 1,
        "started_at_utc": "2026-11-23T12:00:00Z",
        "saved_at_utc": "2026-11-23T12:00:09Z",
        "epoch": 1,
        "step": 5,
        "device": "a GPU",
        "cpu_model": None,
        "phases_s": {"train": 9.0},
    }
    report = make_report(gpu=True, attempt=2, changes={"earlier_attempts": [earlier]})
    found = {name: metric.measure(report) for name, metric in BY_NAME.items()}
    assert found["steady_images_per_s"] == 10_000.0
    for name in ("gpu_util_percent", "gpu_power_w", "gpu_energy_j"):
        value = found[name]
        assert isinstance(value, Missing)
        assert "resumed" in value.reason


def test_what_was_not_measured_says_why() -> None:
    report = make_report(images_per_s=None)
    assert BY_NAME["steady_images_per_s"].measure(report) == Missing(
        reason="one step only, and the first is not steady"
    )
    assert UTIL.measure(report) == Missing(reason="no NVML on this machine")


def test_train_phases_weigh_by_the_time_their_samples_stand_for() -> None:
    report = make_report(
        gpu=True,
        changes={
            "phases.2.start_s": 0.0,
            "phases.2.end_s": 1.0,
            "phases.2.gpu.util_percent": aggregate(100.0),
            "phases.4.start_s": 10.0,
            "phases.4.end_s": 16.0,
            "phases.4.gpu.util_percent": aggregate(50.0, coverage=0.5),
        },
    )
    assert [phase.name for phase in report.phases if phase.name == "train"] == ["train", "train"]
    assert UTIL.measure(report) == pytest.approx((100 * 1 + 50 * 3) / 4)


def test_a_phase_with_too_few_samples_does_not_count() -> None:
    report = make_report(gpu=True, changes={"phases.2.gpu.util_percent": aggregate(1.0, quality="insufficient")})
    assert UTIL.measure(report) == pytest.approx(55.0)


def test_insufficient_everywhere_is_no_measurement() -> None:
    short = aggregate(1.0, quality="insufficient")
    report = make_report(gpu=True, changes={"phases.2.gpu.util_percent": short, "phases.4.gpu.util_percent": short})
    assert UTIL.measure(report) == Missing(reason="the train phases are too short for the sampler")


def test_a_run_that_never_trained() -> None:
    assert UTIL.measure(make_report(status="failed", changes={"phases": []})) == Missing(
        reason="the run has no train phase"
    )


@pytest.mark.parametrize(
    ("reasons", "reason"),
    [
        ({"phases": "far", "phases[].gpu": "near"}, "near"),
        ({"phases": "far"}, "far"),
        ({"phases[].gpu.util_percent": "exact", "phases[].gpu": "near"}, "exact"),
        ({"phase": "another"}, "the report gives no reason"),
    ],
)
def test_the_nearest_reason_speaks(reasons: dict[str, str], reason: str) -> None:
    report = make_report(changes={"null_reasons": reasons})
    assert null_reason(report, "phases[].gpu.util_percent") == reason


def test_speed_is_that_of_completed_runs_and_a_low_accuracy_still_counts() -> None:
    low = make_report(status="below_reference")
    assert not BY_NAME["steady_images_per_s"].counts(as_run(low))
    assert BY_NAME["test_accuracy_ratio"].counts(as_run(low))
    assert not BY_NAME["test_accuracy_ratio"].counts(as_run(make_report(status="interrupted")))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_reports_that_tests_use_explain_every_null(gpu: bool, status: str) -> None:  # noqa: FBT001
    report = make_report(gpu=gpu, status=status, images_per_s=None, accuracy=None)
    assert report.unexplained_nulls() == []


@pytest.mark.parametrize("mean", [1e308, -1e308])
def test_a_figure_past_a_float_s_range_is_no_measurement(mean: float) -> None:
    far = {f"phases.{at}.{end}": value for at in (2, 4) for end, value in (("start_s", -1e308), ("end_s", 1e308))}
    report = make_report(gpu=True, changes={**far, "phases.2.gpu.util_percent": aggregate(mean)})
    assert UTIL.of(report) in {Missing(reason=f"it comes to {sum_}, which no run can have") for sum_ in ("inf", "nan")}


@pytest.mark.parametrize(
    ("value", "counts"),
    [(1.797e308, False), (2e30, False), (9e29, True), (0.0, True), (2e-30, True), (9e-31, False), (5e-324, False)],
)
def test_a_figure_that_no_run_can_have_is_no_measurement(value: float, counts: bool) -> None:  # noqa: FBT001
    speed = BY_NAME["steady_images_per_s"].of(make_report(changes={"results.steady_images_per_s": value}))
    expected = Missing(reason=f"it comes to {value:.4g}, which no run can have")
    assert speed == (value if counts else expected)
