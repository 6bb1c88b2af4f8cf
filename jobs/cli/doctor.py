"""The command ``doctor``: checks whether a job can run here. Each line is ok or says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs import datasets
from jobs.cli.device_proof import prove
from jobs.cli.finding import Finding
from jobs.errors import JobError
from jobs.io.atomic_file import check_writable
from jobs.telemetry import monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from jobs.adapter import DeviceChoice, Framework, FrameworkDevice


def examine(
    load_framework: Callable[[], Framework],
    *,
    device: DeviceChoice,
    dataset: str,
    report_dir: Path,
    time_limit_s: float,
) -> Iterator[Finding]:
    """Run all checks; a failure does not end the others. With ``--device gpu``, also those that use the GPU.

    ``time_limit_s`` is for those that use the GPU.
    """
    yield from _nvml()
    framework, selected = yield from _framework(load_framework, device)
    if selected is not None:
        yield from _metrics(selected)
    yield _checked("dataset", lambda: _dataset_text(dataset))
    yield _checked("report folder", lambda: _report_dir_text(report_dir))
    if framework is not None and selected is not None and device == "gpu":
        yield from prove(framework, selected, limit_s=time_limit_s)


def _nvml() -> Iterator[Finding]:
    status = monitor.probe()
    if not status.available:
        yield Finding("note", "NVML", f"{status.error}; GPU figures will be null in the report")
        return
    healthy = [device for device in status.devices if device.error is None]
    names = ", ".join(f"{device.name} ({device.uuid})" for device in healthy) or "no device"
    yield Finding("ok", "NVML", f"driver {status.driver_version}: {names}")
    for device in status.devices:
        if device.error is not None:
            known = " ".join(filter(None, [device.name, device.uuid])) or f"one of {len(status.devices)} GPUs"
            yield Finding("note", "NVML", f"{known} cannot be read: {device.error}")


def _framework(
    load_framework: Callable[[], Framework], choice: DeviceChoice
) -> Generator[Finding, None, tuple[Framework | None, FrameworkDevice | None]]:
    subject, framework = "framework", None
    try:
        framework = load_framework()
        versions = framework.versions()
        cuda = f"CUDA {versions.cuda_runtime}, cuDNN {versions.cudnn}" if versions.cuda_runtime else "no CUDA"
        yield Finding("ok", subject, f"{versions.name} {versions.version} ({cuda})")
        subject = "device"
        device = framework.select_device(choice)
    except JobError as error:
        yield Finding.failure(subject, error)
        return framework, None
    if device.kind == "cpu" and choice == "auto":
        yield Finding("note", subject, "no GPU is usable here, jobs run on the CPU; --device gpu says why")
    else:
        yield Finding("ok", subject, device.name)
    if device.note is not None:
        yield Finding("note", subject, device.note)
    return framework, device


def _metrics(device: FrameworkDevice) -> Iterator[Finding]:
    """What telemetry can read of the job's GPU: the metrics by source, and the missing ones by reason."""
    available: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for name, capability in monitor.probe(device).capabilities.items():
        if capability.supported:
            # A line for each NVML call; one call reads all field values.
            source = str(capability.source)
            available.setdefault("field values" if source.startswith("NVML_FI_") else source, []).append(name)
        else:
            missing.setdefault(str(capability.error), []).append(name)
    for source, names in available.items():
        yield Finding("ok", "metrics", f"{', '.join(names)} ({source})")
    for reason, names in missing.items():
        yield Finding("note", "metrics", f"no {', '.join(names)}: {reason}")


def _dataset_text(dataset: str) -> str:
    data = datasets.load(dataset)
    return f"{data.name}: {len(data.train_images)} + {len(data.test_images)} images from {data.location}, verified"


def _report_dir_text(folder: Path) -> str:
    check_writable(folder)
    return f"{folder} can be written"


def _checked(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", subject, check())
    except JobError as error:
        return Finding.failure(subject, error)
