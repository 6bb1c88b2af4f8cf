"""One run's results in Prometheus text format, for node_exporter's textfile collector or a push gateway.

Names contain Prometheus' base units: seconds, bytes, joules, watts, ratios of 0…1. A value that was not measured has
no sample.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from jobs.errors import NotWritable
from jobs.io.atomic_file import pending_file, sync_folder
from jobs.report.schema import Aggregate
from jobs.telemetry.metrics import GPU_METRICS, HOST_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.report import Report
    from jobs.report.schema import GpuPhase, HostPhase
    from jobs.telemetry.metrics import Metric

PREFIX: Final = "mnist_job_"

Sample = tuple[str, str, float | None, dict[str, str]]
"""Name, help, value, and the labels that this metric has beside the common ones."""


def check_textfile_writable(path: Path) -> None:
    """Check before the run that ``path`` can be written.

    Raises:
        NotWritable: the folder is missing or cannot be written to, or ``path`` is no regular file.
    """
    _write(path, None)


def write_textfile(report: Report, path: Path) -> None:
    """Write ``report``'s results to ``path``, whole or not at all, in place of an earlier run's.

    Raises:
        NotWritable: it cannot be written, or is no regular file by now.
    """
    _write(path, to_prometheus(report))


def _write(path: Path, content: bytes | None) -> None:
    try:
        # The file is replaced as a whole, which would destroy a device, a pipe or a link.
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise FileExistsError(errno.EEXIST, "it is there and is no regular file")
        with pending_file(content or b"", path.parent, path.name) as file:
            if content is not None:
                file.replace(path)
                sync_folder(path.parent)
    except OSError as error:
        raise NotWritable(
            f"--metrics-textfile {str(path)!r} cannot be written ({error.strerror or error}); "
            "choose a file in a folder that exists and can be written to"
        ) from error


def to_prometheus(report: Report) -> bytes:
    """The results of ``report`` in Prometheus text format."""
    device = report.devices[0] if report.devices else None
    common = {
        "framework": report.config.framework,
        "recipe": report.config.recipe,
        "protocol": report.config.protocol,
        "gpu_uuid": (device.mig_uuid or device.uuid or "") if device is not None else "",
    }
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for name, help_text, value, own in _samples(report):
        if value is None or not _is_float(value):
            continue
        if name not in gauges:
            gauges[name] = Gauge(PREFIX + name, help_text, [*common, *own], registry=registry)
        gauges[name].labels(**common, **own).set(value)
    return generate_latest(registry)


def _is_float(value: float) -> bool:
    """Prometheus has floats only; a whole number in a report may be larger than any."""
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _samples(report: Report) -> Iterator[Sample]:
    results = report.results
    yield "finished_timestamp_seconds", "When the run ended", report.finished_at_utc.timestamp(), {}
    yield "status", "1 for the run's status", 1.0, {"status": report.status}
    yield "test_accuracy_ratio", "Accuracy on the test images", results.test_accuracy_ratio, {}
    yield "test_loss", "Mean loss on the test images", results.test_loss, {}
    yield "train_seconds", "All optimizer steps, the first included", results.train_wall_s, {}
    yield "steady_images_per_second", "Training speed after the first step", results.steady_images_per_s, {}
    peak = results.framework_memory_peak_bytes
    yield "framework_memory_peak_bytes", "Most the framework's allocator had in use", peak, {}
    seconds: dict[str, float] = {}
    for phase in report.phases:
        seconds[phase.name] = seconds.get(phase.name, 0.0) + phase.end_s - phase.start_s
    for name, value in seconds.items():
        yield "phase_seconds", "Time by phase", value, {"phase": name}
    if report.validity is not None:
        valid = {"ok": 1.0, "suspect": 0.0}.get(report.validity.status)
        yield "valid", "1 where nothing disturbed the run, 0 where something did", valid, {}
    if report.training is not None:
        yield from _figures(HOST_METRICS, report.training.host)
        yield from _figures(GPU_METRICS, report.training.gpu)


def _figures(metrics: tuple[Metric, ...], phase: GpuPhase | HostPhase | None) -> Iterator[Sample]:
    """The metrics of steady training that have a name in Prometheus; percentages as ratios, dictionaries by cause."""
    for metric in (metric for metric in metrics if metric.prometheus and phase is not None):
        field, _, cause = metric.field.partition(".")
        value = getattr(phase, field)
        if cause:
            value = (value or {}).get(cause)
        elif isinstance(value, Aggregate):
            value = value.mean / (100 if metric.unit == "%" else 1)
        help_text = f"{field} of the report over steady training" + (", as a ratio" if metric.unit == "%" else "")
        yield metric.prometheus, help_text, value, {"cause": cause} if cause else {}
