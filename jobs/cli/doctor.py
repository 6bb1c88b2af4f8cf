"""``doctor``: can a job run here? Each line is ok or says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs import datasets
from jobs.errors import JobError
from jobs.exit_codes import ExitCode
from jobs.io.atomic_file import check_writable
from jobs.telemetry import monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from jobs.adapter import DeviceChoice, Framework, FrameworkDevice


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: ``note`` is worth knowing but stops no job."""

    state: Literal["ok", "note", "fail"]
    subject: str
    text: str
    exit_code: ExitCode = ExitCode.DONE


def examine(
    load_framework: Callable[[], Framework], *, device: DeviceChoice, dataset: str, report_dir: Path
) -> Iterator[Finding]:
    """Look at one thing after another; a failure does not hide what comes after it."""
    yield _nvml()
    chosen = yield from _framework(load_framework, device)
    if chosen is not None:
        yield from _metrics(chosen)
    yield _attempt("dataset", lambda: _dataset_text(dataset))
    yield _attempt("report folder", lambda: _report_dir_text(report_dir))


def _nvml() -> Finding:
    status = monitor.probe()
    if not status.available:
        return Finding(state="note", subject="NVML", text=f"{status.error}; GPU figures will be null in the report")
    names = ", ".join(f"{device.name} ({device.uuid})" for device in status.devices) or "no device"
    return Finding(state="ok", subject="NVML", text=f"driver {status.driver_version}: {names}")


def _framework(
    load_framework: Callable[[], Framework], device: DeviceChoice
) -> Generator[Finding, None, FrameworkDevice | None]:
    try:
        framework = load_framework()
    except JobError as error:
        yield Finding(state="fail", subject="framework", text=str(error), exit_code=error.exit_code)
        return None
    versions = framework.versions()
    cuda = f"CUDA {versions.cuda_runtime}, cuDNN {versions.cudnn}" if versions.cuda_runtime else "no CUDA"
    yield Finding(state="ok", subject="framework", text=f"{versions.name} {versions.version} ({cuda})")
    try:
        chosen = framework.select_device(device)
    except JobError as error:
        yield Finding(state="fail", subject="device", text=str(error), exit_code=error.exit_code)
        return None
    if chosen.kind == "cpu" and device == "auto":
        text = "no GPU is usable here, jobs run on the CPU; --device gpu says why"
        yield Finding(state="note", subject="device", text=text)
    else:
        yield Finding(state="ok", subject="device", text=chosen.name)
    return chosen


def _metrics(device: FrameworkDevice) -> Iterator[Finding]:
    """What telemetry can read of the job's own GPU: what works by its source, what does not by its reason."""
    status = monitor.probe(device)
    working: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for name, capability in status.capabilities.items():
        if capability.supported:
            # A line for each call; NVML's field values come by one.
            source = str(capability.source)
            working.setdefault("field values" if source.startswith("NVML_FI_") else source, []).append(name)
        else:
            missing.setdefault(str(capability.error), []).append(name)
    for source, names in working.items():
        yield Finding(state="ok", subject="metrics", text=f"{', '.join(names)} ({source})")
    for reason, names in missing.items():
        yield Finding(state="note", subject="metrics", text=f"no {', '.join(names)}: {reason}")


def _dataset_text(dataset: str) -> str:
    data = datasets.load(dataset)
    return f"{data.name}: {len(data.train_images)} + {len(data.test_images)} images from {data.location}, verified"


def _report_dir_text(folder: Path) -> str:
    check_writable(folder)
    return f"{folder} can be written"


def _attempt(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(state="ok", subject=subject, text=look())
    except JobError as error:
        return Finding(state="fail", subject=subject, text=str(error), exit_code=error.exit_code)
