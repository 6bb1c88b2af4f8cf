from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.input.metrics import METRICS, NOT_COVERED, TOO_SHORT, Missing, null_reason
from jobs.comparison.input.parse import parse
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.schema_base import MetricName

BY_NAME = {metric.name: metric for metric in METRICS}
UTIL = BY_NAME["gpu_util_percent"]


def test_metrics_of_a_gpu_run_are_those_of_the_report() -> None:
    report = make_report(gpu=True, peak_flop_per_s=4e10)
    assert report.training is not None
    gpu = report.training.gpu
    assert gpu is not None
    assert gpu.util_percent is not None
    assert gpu.power_w is not None
    assert {name: metric.of(report) for name, metric in BY_NAME.items()} == {
        "steady_images_per_s": 10_000.0,
        "train_wall_s": 12.0,
        "test_accuracy_ratio": 0.95,
        "gpu_util_percent": gpu.util_percent.mean,
        "gpu_sm_util_percent": Missing("not sampled"),
        "gpu_power_w": gpu.power_w.mean,
        "gpu_energy_j": gpu.energy_j,
        # 250 W at 10,000 images a second.
        "gpu_energy_j_per_million_images": pytest.approx(25_000.0, rel=0.02),
        # 10,000 images a second of 1,000,000 operations.
        "ceiling_share_ratio": 0.25,
        "ceiling_flop_per_s": 4e10,
    }
    assert (gpu.util_percent.mean, gpu.power_w.mean) == pytest.approx((55.0, 250.0), rel=0.02)


def test_gpu_figures_short_train_phases_are_those_of_all_together() -> None:
    # Two seconds an epoch are too short for a figure of one train phase, but not for three of them together.
    report = make_report(gpu=True, epochs=3, images_per_s=30_000.0)
    phases = [phase.gpu for phase in report.phases if phase.name == "train"]
    assert {gpu.power_w.quality for gpu in phases if gpu and gpu.power_w} == {"insufficient"}
    assert BY_NAME["gpu_power_w"].of(report) == pytest.approx(250.0, rel=0.02)
    assert UTIL.of(report) == pytest.approx(55.0, rel=0.02)


def test_gpu_energy_unread_first_step_is_that_of_training() -> None:
    report = make_report(gpu=True, changes={"phases.1.gpu.energy_j": None})
    assert BY_NAME["gpu_energy_j"].of(report) == pytest.approx(250.0 * 12.0, rel=0.02)


def test_gpu_figures_resumed_run_are_missing() -> None:
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
    found = {name: metric.of(report) for name, metric in BY_NAME.items()}
    assert found["steady_images_per_s"] == 10_000.0
    for name in GPU_NAMES:
        value = found[name]
        assert isinstance(value, Missing)
        assert "resumed" in value.reason


def test_metrics_unmeasured_give_the_reason() -> None:
    report = make_report(images_per_s=None)
    assert BY_NAME["steady_images_per_s"].of(report) == Missing(reason="one step only, and the first is not steady")
    assert UTIL.of(report) == Missing("no NVML on this machine")


GPU_NAMES = [name for name, metric in BY_NAME.items() if metric.is_of_gpu and name != "gpu_sm_util_percent"]


@pytest.mark.parametrize("name", GPU_NAMES)
def test_gpu_figures_training_too_short_are_missing(name: MetricName) -> None:
    report = make_report(gpu=True, epochs=1, images_per_s=60_000.0)
    assert BY_NAME[name].of(report) == TOO_SHORT


def test_gpu_figures_phases_shorter_than_a_reading_are_too_short() -> None:
    """Many train phases of 0.2 s: no reading that stands for a second lies inside one, so the figure is null."""
    capability = {"supported": True, "source": "nvmlDeviceGetUtilizationRates", "error": None, "window_s": 1.0}
    changes: dict[str, Any] = {
        "training.gpu.util_percent": None,
        "telemetry.capabilities": {"util_percent": capability},
    }
    assert UTIL.of(make_report(gpu=True, changes=changes)) == TOO_SHORT
    lost = changes | {"telemetry.capabilities": {"util_percent": capability | {"error": "GPU is lost"}}}
    assert UTIL.of(make_report(gpu=True, changes=lost)) == Missing("no reading in a phase this short")


def test_gpu_figures_lost_readings_are_not_called_too_short() -> None:
    few = {"training.gpu.util_percent.quality": "insufficient", "training.gpu.util_percent.coverage_ratio": 0.5}
    report = make_report(gpu=True, changes=few)
    assert UTIL.of(report) == NOT_COVERED
    # The readings are shown all the same.
    readings = UTIL.readings(report)
    assert readings is not None
    assert readings.coverage_ratio == 0.5


def test_gpu_energy_per_image_repeated_training_counts_the_images_of_all() -> None:
    """12 s of train phases, of which 2 s were between the trainings: 10 s at 10,000 images a second."""
    repeats = {"trainings": 4, "images": 50_000, "train_s": 5.0, "between_s": 2.0}
    report = make_report(gpu=True, changes={"results.repeats": repeats, "training.gpu.energy_j": 3_000.0})
    assert BY_NAME["gpu_energy_j_per_million_images"].of(report) == pytest.approx(3_000.0 / 0.1)
    unknown = make_report(gpu=True, images_per_s=None, changes={"training.gpu.energy_j": 3_000.0})
    assert BY_NAME["gpu_energy_j_per_million_images"].of(unknown) == Missing(
        "one step only, and the first is not steady"
    )


def test_gpu_figures_run_that_never_trained_are_missing() -> None:
    changes: dict[str, Any] = {
        "phases": [],
        "training": None,
        "null_reasons.training": "the run did not get as far as training",
    }
    report = make_report(status="failed", changes=changes)
    assert UTIL.of(report) == Missing("the run did not get as far as training")


def test_gpu_figures_metric_that_was_not_read_give_its_reason() -> None:
    report = make_report(gpu=True, changes={"training.gpu.power_w": None})
    assert BY_NAME["gpu_power_w"].of(report) == Missing(report.null_reasons["training.gpu.power_w"])


def test_gpu_figures_schema_1_0_are_missing_and_say_why() -> None:
    document = json.loads(make_report(gpu=True, changes={"schema_version": "1.0"}).model_dump_json())
    del document["training"]
    report = parse(json.dumps(document).encode(), origin="x")
    assert UTIL.of(report) == Missing(
        "written before report schema 1.1, which has the GPU's figures over all train phases"
    )
    assert BY_NAME["steady_images_per_s"].of(report) == 10_000.0


@pytest.mark.parametrize(
    ("reasons", "reason"),
    [
        ({"phases": "far", "phases[].gpu": "near"}, "near"),
        ({"phases": "far"}, "far"),
        ({"phases[].gpu.util_percent": "exact", "phases[].gpu": "near"}, "exact"),
        ({"phase": "another"}, "the report gives no reason"),
    ],
)
def test_null_reason_nearest_path_counts(reasons: dict[str, str], reason: str) -> None:
    report = make_report(changes={"null_reasons": reasons})
    assert null_reason(report, "phases[].gpu.util_percent") == reason


def test_counts_below_reference_counts_for_accuracy_only() -> None:
    low = make_report(status="below_reference")
    assert not BY_NAME["steady_images_per_s"].counts(low.status)
    assert BY_NAME["test_accuracy_ratio"].counts(low.status)
    assert not BY_NAME["test_accuracy_ratio"].counts("interrupted")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_make_report_explains_every_null(gpu: bool, status: str) -> None:  # noqa: FBT001
    report = make_report(gpu=gpu, status=status, images_per_s=None, accuracy=None)
    assert report.unexplained_nulls() == []


@pytest.mark.parametrize(
    ("value", "counts"),
    [(1.797e308, False), (2e30, False), (9e29, True), (0.0, True), (2e-30, True), (9e-31, False), (5e-324, False)],
)
def test_metrics_implausible_figure_is_missing(value: float, counts: bool) -> None:  # noqa: FBT001
    speed = BY_NAME["steady_images_per_s"].of(make_report(changes={"results.steady_images_per_s": value}))
    expected = Missing(f"its value of {value:.4g} is not plausible")
    assert speed == (value if counts else expected)
