"""The part of ``doctor --device gpu`` that uses the GPU: the framework's checks, and telemetry while the GPU works.

Only the device can answer these. The lines are what a bug report needs. Telemetry comes first, since it is quick.
Compiling with XLA takes most of the time: no check begins that is not expected to end within the limit.
"""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs import __version__
from jobs.adapter import RunSpec
from jobs.adapter_common import CHECK_STEPS
from jobs.cli.finding import Finding
from jobs.datasets.dataset import ImageDataset
from jobs.errors import JobError, NotMeasured
from jobs.exit_codes import ExitCode
from jobs.phases import Clock, Span
from jobs.recipes import LENET
from jobs.telemetry import monitor
from jobs.telemetry.processes import processes_on
from jobs.telemetry.sampler.nvml import NvmlUnavailable
from jobs.telemetry.types import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import DeviceCheck, Framework, FrameworkDevice
    from jobs.report.schema import Aggregate, GpuPhase
    from jobs.telemetry.types import Observation

IDLE_S: Final = 2.5
BUSY_S: Final = 3.0
"""Both longer than NVML's averages, which take up to 1 s."""
MIN_RISE: Final = 1.1
"""A large matrix product keeps an idle GPU busy all the time, at several times its idle power."""
ALREADY_BUSY_PERCENT: Final = 80.0
OPTIONS: Final = Options(fast_s=0.05, gpm_s=0.2, slow_s=0.5)


def prove(
    framework: Framework, device: FrameworkDevice, *, limit_s: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Finding]:
    """Watch the device idle and at work, then run the framework's checks; a failure does not end the others.

    A check begins only if ``limit_s`` seconds leave it the time of the longest one before it; otherwise it is a
    ``note``. A check that has begun is not ended.
    """
    start_s = clock()
    yield Finding("ok", "program", _circumstances(device))
    yield from _telemetry(framework, device)
    yield _own_process(device)
    longest_s = 0.0
    for check in framework.device_checks(device.kind, check_digits()):
        check_start_s = clock()
        if check_start_s - start_s + longest_s >= limit_s:
            yield _not_begun(check, check_start_s - start_s, limit_s)
            continue
        yield _run(check, framework, clock)
        longest_s = max(longest_s, clock() - check_start_s)
    seconds = clock() - start_s
    text = f"these checks took {seconds:.0f} s; the limit is {limit_s:.0f} s"
    yield Finding("ok" if seconds < limit_s else "note", "time", text)


def _telemetry(framework: Framework, device: FrameworkDevice) -> Iterator[Finding]:
    try:
        observation = watch_work(framework, device)
    except Exception as error:  # noqa: BLE001 - a framework has errors of its own
        yield _unexpected("matrix product", error, framework)
    else:
        yield from judge_telemetry(observation)


def check_digits() -> ImageDataset:
    """Random images and labels for ``CHECK_STEPS`` steps of the recipes' 64, the last with fewer.

    What is compared depends on the arithmetic, not on what the images show.
    """
    images = CHECK_STEPS * LENET.batch_size - 24
    noise = np.random.PCG64(1).random_raw(images * 98).view(np.uint8).reshape(images, 28, 28)
    labels = noise[:, 0, 0] % 10
    return ImageDataset(
        name="noise",
        sha256="",
        train_images=noise,
        train_labels=labels,
        test_images=noise[:0],
        test_labels=labels[:0],
        location="drawn by doctor",
        files=(),
    )


def _circumstances(device: FrameworkDevice) -> str:
    memory = "" if device.memory_total_bytes is None else f", {device.memory_total_bytes / 2**30:.0f} GiB"
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"
    return f"mnist-jobs {__version__}, {system}; compute capability {device.compute_capability or 'unknown'}{memory}"


def _not_begun(check: DeviceCheck, used_s: float, limit_s: float) -> Finding:
    return Finding(
        "note",
        check.name,
        f"not checked: {used_s:.0f} s have passed, and the limit is {limit_s:.0f} s; "
        "`doctor --device gpu` with a longer --time-limit checks it too",
    )


def _run(check: DeviceCheck, framework: Framework, clock: Callable[[], float]) -> Finding:
    start_s = clock()
    try:
        text = check.run()
    except NotMeasured as error:
        return Finding("note", check.name, str(error))
    except JobError as error:
        return Finding.failure(check.name, error)
    except Exception as error:  # noqa: BLE001 - a framework has errors of its own
        return _unexpected(check.name, error, framework)
    return Finding("ok", check.name, f"{text} ({clock() - start_s:.1f} s)")


def _unexpected(subject: str, error: Exception, framework: Framework) -> Finding:
    code = ExitCode.OUT_OF_MEMORY if framework.is_out_of_memory(error) else ExitCode.NO_USABLE_GPU
    # A framework's message may have hundreds of lines; the first ones name the operation.
    return Finding("fail", subject, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", code)


def watch_work(framework: Framework, device: FrameworkDevice) -> Observation:
    """Telemetry of two intervals: the first idle, the second with matrix products of the framework on the device."""
    execution = framework.default_execution(device.kind, "resident")
    spec = RunSpec.for_recipe(LENET, device=device.kind, execution=execution)
    clock = Clock()
    watch = monitor.watch(clock=clock, options=OPTIONS, gpu_untouched=False)
    spans = []
    try:
        watch.attach(device)
        for works in (False, True):
            if works:
                # The first product also starts CUDA and its libraries, for seconds in which the GPU does nothing.
                framework.matmul_flop_per_s(spec)
            watch.mark()
            start_s = clock()
            if works:
                _multiply(framework, spec)
            else:
                time.sleep(IDLE_S)
            watch.mark()
            spans.append(Span(name="train", epoch=None, start_s=start_s, end_s=clock()))
    finally:
        observation = watch.stop(spans)
    return observation


def _multiply(framework: Framework, spec: RunSpec) -> None:
    end_s = time.monotonic() + BUSY_S
    while time.monotonic() < end_s:
        framework.matmul_flop_per_s(spec)


def judge_telemetry(observation: Observation) -> Iterator[Finding]:
    """Whether utilization, power and energy rose from the first interval, idle, to the second, at work.

    A reading that this GPU does not offer is a ``note``; one that contradicts the work is a ``fail``.
    """
    (idle, busy), reasons = observation.gpu, observation.null_reasons
    if idle is None or busy is None:
        yield Finding(
            "note", "telemetry", f"the GPU was not observed: {reasons.get('phases[].gpu', 'no reason known')}"
        )
        return
    for name in ("util_percent", "sm_util_percent", "power_w"):
        before: Aggregate | None = getattr(idle, name)
        during: Aggregate | None = getattr(busy, name)
        if before is None or during is None:
            yield _missing(name, observation)
            continue
        text = f"{before.mean:.1f} idle, {during.mean:.1f} while the GPU worked"
        if during.mean > MIN_RISE * before.mean:
            yield Finding("ok", name, text)
        elif idle.util_percent is not None and idle.util_percent.mean > ALREADY_BUSY_PERCENT:
            yield Finding("note", name, f"{text}: it was in use before; end the other work and try again")
        else:
            yield Finding("fail", name, f"{text}: it does not follow the work", ExitCode.NO_USABLE_GPU)
    yield _energy(busy, observation)


def _energy(busy: GpuPhase, observation: Observation) -> Finding:
    if busy.energy_j is None or busy.energy_source == "power x time":
        return _missing("energy_j", observation)
    by_power = "" if busy.energy_from_power_j is None else f"; power times time gives {busy.energy_from_power_j:.0f} J"
    text = f"{busy.energy_j:.0f} J while the GPU worked ({busy.energy_source}){by_power}"
    if busy.energy_j > 0:
        return Finding("ok", "energy_j", text)
    return Finding("fail", "energy_j", f"{text}: the counter stands still", ExitCode.NO_USABLE_GPU)


def _missing(name: str, observation: Observation) -> Finding:
    capability = observation.telemetry.capabilities[name]
    reason = capability.error or observation.null_reasons.get(f"phases[].gpu.{name}")
    if capability.supported:
        text = f"no value while the GPU worked, though {capability.source} answers: {reason}"
        return Finding("fail", name, text, ExitCode.NO_USABLE_GPU)
    return Finding("note", name, f"not offered here: {reason}")


def _own_process(device: FrameworkDevice) -> Finding:
    """Whether NVML lists this process on the device, by its id in this PID namespace.

    In a container old drivers list the host's ids. Newer ones, reported with 560, list the container's processes only,
    by their ids there: NVIDIA's open kernel modules convert each id (open-gpu-kernel-modules, pull request 614).
    """
    query = monitor.query_of(device)
    assert query is not None
    try:
        processes = processes_on(query)
    except NvmlUnavailable as error:
        return Finding("note", "processes", f"NVML lists none: {error}")
    own = os.getpid()
    listed = ", ".join(map(str, sorted(processes.ids))) or "none"
    if processes.mps_servers:
        listed += f", with {processes.mps_servers} server{'s' if processes.mps_servers > 1 else ''} of NVIDIA's MPS"
    if own in processes.ids:
        return Finding("ok", "processes", f"NVML lists this process, {own}, on the device (all: {listed})")
    return Finding(
        "note",
        "processes",
        f"NVML does not list this process, {own}, but {listed}; in a container, an older driver lists the host's ids, "
        "which is expected, and a newer one lists the container's own processes, and should list this one",
    )
