"""The list of metrics against the binding, the report's schema and the Prometheus file."""

from __future__ import annotations

from typing import Any

import pynvml

from jobs.report.schema import GpuPhase, HostPhase, TrainingSummary
from jobs.telemetry.metrics import GPU_METRICS, HOST_METRICS, POLLED_THROTTLING, Metric
from jobs.training.prometheus import to_prometheus
from tests.support.reports import make_report


def _fields(metrics: tuple[Metric, ...]) -> set[str]:
    return {metric.field.partition(".")[0] for metric in metrics}


def test_metrics_nvml_names_are_in_the_binding() -> None:
    names = {f"NVML_{metric.buffer}_SAMPLES" for metric in GPU_METRICS if metric.buffer}
    for source in (source for metric in (*GPU_METRICS, *POLLED_THROTTLING) for source in metric.sources):
        names |= {source.argument} if source.name == "GPM" else {source.function or source.name, source.argument}
    missing = {name for name in names - {""} if not hasattr(pynvml, name)}
    assert missing == set()


def test_metrics_names_are_unique() -> None:
    names = [metric.name for metric in (*GPU_METRICS, *HOST_METRICS)]
    assert len(names) == len(set(names))


def test_report_fields_come_from_the_list_of_metrics() -> None:
    # Where the energy came from, and the check on it, are made from other metrics.
    assert _fields(GPU_METRICS) | {"energy_source", "energy_from_power_j"} == set(GpuPhase.model_fields)
    assert _fields(HOST_METRICS) == set(HostPhase.model_fields)


def test_prometheus_full_report_has_every_named_metric() -> None:
    figure = {"mean": 1, "p50": 1, "p95": 1, "max": 1, "n": 30, "coverage_ratio": 1, "quality": "ok"}
    values: dict[str, Any] = {
        metric.field.partition(".")[0]: figure if metric.aggregation == "mean" else 1
        for metric in (*GPU_METRICS, *HOST_METRICS)
    }
    values |= {"throttle_s": {"thermal": 1.0}, "xid_errors": [], "energy_source": None}
    training = {"duration_s": 10, "gpu": values, "host": values}
    report = make_report().model_copy(update={"training": TrainingSummary.model_validate(training)})
    text = to_prometheus(report).decode()
    for metric in (*GPU_METRICS, *HOST_METRICS):
        assert not metric.prometheus or f"\nmnist_job_{metric.prometheus}{{" in text
