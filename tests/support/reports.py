"""Builds valid reports for tests: a small run, of which each test changes the fields that matter to it.

The GPU's and the host's figures come from telemetry's own aggregation of made-up readings, as a job's do.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.report import SCHEMA_VERSION, Report
from jobs.report.null_reasons import USUAL_REASONS
from jobs.report.schema import GpuPhase, HostPhase, TrainingSummary
from jobs.telemetry.aggregate import ReadingWindow, Series, aggregate
from jobs.telemetry.validity import assess_validity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jobs.choices import FrameworkName
    from jobs.telemetry.aggregate import Interval

DATA_SHA256 = "5a" * 32
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_VERSIONS = {"tensorflow": "2.21.0", "torch": "2.15.0"}
_PARAMETERS = {"lenet": 431_080, "basic-cnn": 1_676_266}
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lenet": {"name": "sgd", "momentum": 0.5, "beta_1": None, "beta_2": None, "epsilon": None},
    "basic-cnn": {"name": "adam", "momentum": None, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}


def make_report(
    *,
    framework: FrameworkName = "torch",
    recipe: Literal["lenet", "basic-cnn"] = "lenet",
    protocol: Literal["matched", "published"] = "matched",
    seed: int = 1,
    run_id: str | None = None,
    attempt: int = 1,
    status: str = "completed",
    images_per_s: float | None = 10_000.0,
    accuracy: float | None = 0.95,
    epochs: int = 2,
    gpu: bool = False,
    peak_flop_per_s: float | None = None,
    timeseries: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Report:
    """A valid report whose every null is explained.

    ``images_per_s`` is the steady training speed, from which the times follow (60,000 images an epoch). With
    ``peak_flop_per_s`` the run measured its device's peak.
    ``changes`` sets any other field by its path, as in ``{"config.batch_size": 128, "devices.0.name": "x"}``.
    """
    data = _document(
        framework=framework,
        recipe=recipe,
        protocol=protocol,
        seed=seed,
        epochs=epochs,
        gpu=gpu,
        speed=images_per_s,
        accuracy=accuracy,
    )
    data["run_id"] = run_id or f"{framework}-{recipe}-{protocol}-{seed}"
    data["attempt"] = attempt
    data["status"] = status
    if status == "completed":
        data["null_reasons"]["status_reason"] = "the run completed"
    else:
        data["status_reason"] = f"the run is {status}"
    if images_per_s is None:
        data["null_reasons"]["results.steady_images_per_s"] = "one step only, and the first is not steady"
    if accuracy is None:
        data["null_reasons"]["results.test_accuracy_ratio"] = "stopped before an evaluation"
        data["null_reasons"]["results.epochs[].test_accuracy_ratio"] = "stopped before an evaluation"
    if peak_flop_per_s is not None:
        _set_peak(data["results"], peak_flop_per_s)
    if timeseries:
        data["timeseries"] = {"columns": ["power_w"], "units": ["W"], "t_s": [0.0, 0.1], "values": [[1.0, None]]}
    else:
        data["null_reasons"]["timeseries"] = "not sampled"
    for path, value in (changes or {}).items():
        _set(data, path, value)
    return Report.model_validate(data)


def _set_peak(results: dict[str, Any], peak_flop_per_s: float) -> None:
    results["ceiling_flop_per_s"] = peak_flop_per_s
    if results["steady_images_per_s"] is not None:
        achieved = results["steady_images_per_s"] * results["model_flop_per_image"]
        results |= {"achieved_flop_per_s": achieved, "ceiling_share_ratio": achieved / peak_flop_per_s}


def write_report(report: Report, path: Path) -> Path:
    """Write ``report`` as a report file at ``path``, its folder made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def _set(data: Any, path: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        data = data[part]
    data[last] = deepcopy(value)


def _document(
    *,
    framework: str,
    recipe: str,
    protocol: str,
    seed: int,
    epochs: int,
    gpu: bool,
    speed: float | None,
    accuracy: float | None,
) -> dict[str, Any]:
    wall_s = 60_000 / (speed or 1_000.0)
    curve = [None if accuracy is None else accuracy - 0.01 * (epochs - 1 - index) for index in range(epochs)]
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status_reason": None,
        "started_at_utc": STARTED,
        "finished_at_utc": STARTED + timedelta(seconds=60),
        "environment": _environment(framework, gpu=gpu),
        "devices": [_device()] if gpu else [],
        "config": _config(framework, recipe, protocol, seed=seed, epochs=epochs, gpu=gpu),
        "results": {
            "test_accuracy_ratio": accuracy,
            "test_loss": 0.15,
            "train_loss": 0.2,
            "train_wall_s": epochs * wall_s,
            "steady_images_per_s": speed,
            "time_to_accuracy_s": None,
            "target_accuracy_ratio": 0.95,
            "reference_accuracy_ratio": 0.9,
            "test_examples_evaluated": 10_000,
            "model_flop_per_image": 1_000_000,
            "achieved_flop_per_s": None,
            "ceiling_flop_per_s": None,
            "ceiling_share_ratio": None,
            "epochs": [
                {
                    "epoch": index + 1,
                    "wall_s": wall_s,
                    "train_loss": 0.5 / (index + 1),
                    "test_loss": 0.4 / (index + 1),
                    "test_accuracy_ratio": reached,
                }
                for index, reached in enumerate(curve)
            ],
        },
        **deepcopy(_observed(epochs, wall_s, gpu=gpu)),
        "parity": None,
        "telemetry": {
            "available": gpu,
            "capabilities": {},
            "sampler": {
                "mode": "process",
                "interval_s": 0.1,
                "taken": 100,
                "missed": 0,
                "lateness_p95_ms": 0.2,
                "cpu_s": 0.1,
            },
        },
        "timeseries": None,
        "warnings": [],
        "null_reasons": {
            **USUAL_REASONS,
            **dict.fromkeys(_HOST_REASONS, "not read in a phase this short"),
            "telemetry.sampler.planned": "not counted",
            "telemetry.sampler.late": "not counted",
            "telemetry.sampler.startup_cpu_s": "not counted",
        },
    }
    if not gpu:
        data["null_reasons"] |= dict.fromkeys(("phases[].gpu", "training.gpu"), "no NVML on this machine")
        for name in ("driver_version", "cuda_driver_version", "cuda_runtime_version", "cudnn_version"):
            data["null_reasons"][f"environment.{name}"] = "no GPU"
    else:
        data["null_reasons"]["devices[].mig_uuid"] = "MIG is off"
        for name in GpuPhase.model_fields:
            reason = "no reading in a phase this short" if name in _READINGS else "not sampled"
            data["null_reasons"] |= {f"phases[].gpu.{name}": reason, f"training.gpu.{name}": reason}
    return data


def _environment(framework: str, *, gpu: bool) -> dict[str, Any]:
    return {
        "driver_version": "570.124.06" if gpu else None,
        "cuda_driver_version": "12.8" if gpu else None,
        "cuda_runtime_version": "12.8" if gpu else None,
        "cudnn_version": "9.8.0" if gpu else None,
        "framework": {"name": framework, "version": _VERSIONS[framework]},
        "python_version": "3.13.1",
        "package_version": "0.1.0",
        "image": None,
        "git_sha": None,
        "kubernetes": None,
        "cpu": {"model": "Example CPU", "logical_cores": 2, "quota_cores": None, "affinity_cores": 2},
        "memory_total_bytes": 8_000_000_000,
        "os": "Linux 6.12",
    }


def _device() -> dict[str, Any]:
    return {
        "framework_index": 0,
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "mig_uuid": None,
        "pci_bus_id": "00000000:01:00.0",
        "name": "Example GPU",
        "compute_capability": "9.0",
        "memory_total_bytes": 80_000_000_000,
        "power_limit_w": 700.0,
        "mapping_method": "uuid",
    }


def _config(framework: str, recipe: str, protocol: str, *, seed: int, epochs: int, gpu: bool) -> dict[str, Any]:
    matched = protocol == "matched"
    return {
        "recipe": recipe,
        "protocol": protocol,
        "framework": framework,
        "seed": seed,
        "epochs": epochs,
        "batch_size": 64,
        "learning_rate": 0.001,
        "dataset": {"name": "mnist", "sha256": DATA_SHA256, "train_examples": 60_000, "test_examples": 10_000},
        "parameter_count": _PARAMETERS[recipe],
        "precision": "fp32",
        "execution": "graph" if framework == "tensorflow" else "eager",
        "input": "resident",
        "device": "gpu" if gpu else "cpu",
        "dropout": True,
        "initializer": "kaiming_uniform" if matched else f"{framework}'s own",
        "optimizer": {**_OPTIMIZERS[recipe], "form": "matched" if matched else f"{framework}'s own"},
        "numerics": {
            "compute_dtype": "float32",
            "variable_dtype": "float32",
            "tf32_matmul": False,
            "tf32_convolution": False,
            "deterministic": False,
            "intra_op_threads": 2,
            "inter_op_threads": 2,
            "settings": {},
        },
    }


@lru_cache(maxsize=64)
def _observed(epochs: int, wall_s: float, *, gpu: bool) -> dict[str, Any]:
    """The phases of a run whose epochs train for ``wall_s``, and what was observed of it, as in a report."""
    spans: list[tuple[str, int | None, Interval]] = [("build", None, (0.0, 1.0))]
    end_s = 1.0
    for epoch in range(1, epochs + 1):
        for name, duration_s in (("first_step", 0.5), ("train", wall_s), ("evaluate", 1.0)):
            if name != "first_step" or epoch == 1:
                spans.append((name, epoch, (end_s, end_s + duration_s)))
                end_s += duration_s
    train = [interval for name, _, interval in spans if name == "train"]
    training = None
    if train:
        training = TrainingSummary(
            duration_s=sum(end - start for start, end in train),
            gpu=_gpu(train, train, end_s) if gpu else None,
            host=_host(train, end_s),
        )
    return {
        "phases": [
            {
                "name": name,
                "epoch": epoch,
                "start_s": interval[0],
                "end_s": interval[1],
                "gpu": _gpu([interval], train, end_s).model_dump() if gpu else None,
                "host": _host([interval], end_s).model_dump(),
            }
            for name, epoch, interval in spans
        ],
        "training": training and training.model_dump(),
        "validity": assess_validity(on_gpu=gpu, training=training, warnings=[]).model_dump(),
    }


_READINGS: Final = {"util_percent": (1.0, 55.0), "power_w": (100.0, 250.0)}
"""What is read of the GPU outside the train phases and inside."""

_HOST_REASONS: Final = [f"{part}.host.{name}" for part in ("phases[]", "training") for name in HostPhase.model_fields]


def _times(end_s: float) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ReadingWindow]:
    """When readings were taken: ten times a second, less often in a run of hours."""
    step_s = max(0.1, end_s / 1000)
    return np.arange(0.0, end_s + step_s, step_s), ReadingWindow(max_gap_s=3 * step_s)


def _gpu(intervals: Sequence[Interval], train: Sequence[Interval], end_s: float) -> GpuPhase:
    times, window = _times(end_s)
    busy = np.any([(start < times) & (times <= end) for start, end in train], axis=0) if train else times < 0
    figures = {
        name: aggregate(Series(times, np.where(busy, inside, outside)), intervals, window)
        for name, (outside, inside) in _READINGS.items()
    }
    power_w = figures["power_w"]
    duration_s = sum(end - start for start, end in intervals)
    return GpuPhase(
        **figures,
        sm_util_percent=None,
        memory_util_percent=None,
        energy_j=power_w and power_w.mean * duration_s,
        energy_source=power_w and "power x time",
        memory_used_peak_bytes=1_000_000_000,
        throttle_s={"power_cap": 0.0, "thermal": 0.0},
    )


def _host(intervals: Sequence[Interval], end_s: float) -> HostPhase:
    times, window = _times(end_s)
    cpu_percent = aggregate(Series(times, np.full_like(times, 100.0)), intervals, window)
    return HostPhase(cpu_percent=cpu_percent, rss_peak_bytes=1_000_000_000)
