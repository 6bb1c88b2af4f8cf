"""One run's results in Prometheus text format, for node_exporter's textfile collector or a push gateway.

Names carry Prometheus' base units: seconds, bytes, joules, watts, ratios of 0…1. A figure that could not be taken
has no sample, as Prometheus wants it for a value that is not known.
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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.report import Report
    from jobs.report.schema import Aggregate

PREFIX: Final = "mnist_job_"

GPU_RATIOS: Final = {
    "gpu_utilization_ratio": "util_percent",
    "gpu_sm_utilization_ratio": "sm_util_percent",
    "gpu_sm_occupancy_ratio": "sm_occupancy_percent",
    "gpu_tensor_utilization_ratio": "tensor_util_percent",
    "gpu_dram_bandwidth_utilization_ratio": "dram_bandwidth_util_percent",
    "gpu_memory_controller_utilization_ratio": "memory_util_percent",
}
"""The metric's name, and the report's field, a percentage."""

Sample = tuple[str, str, float | None, dict[str, str]]
"""Name, help, value, and the labels that this metric has beside the common ones."""


def check_textfile_writable(path: Path) -> None:
    """Check before the run that ``path`` can be written.

    Raises:
        NotWritable: the folder is missing or cannot be written to, or ``path`` is something else than a file.
    """
    _write(path, None)


def write_textfile(report: Report, path: Path) -> None:
    """Write ``report``'s figures to ``path``, whole or not at all, in place of an earlier run's.

    Raises:
        NotWritable: it cannot be written, or something else than a file has come to be there.
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
    """The figures of ``report`` in Prometheus text format."""
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
    training = report.training
    if training is not None and training.host is not None:
        host = training.host
        yield "cpu_cores", "CPU in use during steady training, 1 is one core", _hundredth(host.cpu_percent), {}
        yield "resident_memory_peak_bytes", "Resident memory during steady training", host.rss_peak_bytes, {}
        yield "cgroup_throttled_seconds", "Time held back by the CPU quota in training", host.cgroup_throttled_s, {}
    if training is not None and training.gpu is not None:
        gpu = training.gpu
        for name, field in GPU_RATIOS.items():
            help_text = f"{field} of the report over steady training, as a ratio"
            yield name, help_text, _hundredth(getattr(gpu, field)), {}
        power = gpu.power_w
        yield "gpu_power_watts", "Mean power during steady training", None if power is None else power.mean, {}
        yield "gpu_energy_joules", "Energy of steady training", gpu.energy_j, {}
        yield "gpu_memory_used_peak_bytes", "Memory in use on the device", gpu.memory_used_peak_bytes, {}
        for cause, throttled_s in (gpu.throttle_s or {}).items():
            yield "gpu_throttled_seconds", "Time at lowered clocks in steady training", throttled_s, {"cause": cause}


def _hundredth(percent: Aggregate | None) -> float | None:
    return None if percent is None else percent.mean / 100
