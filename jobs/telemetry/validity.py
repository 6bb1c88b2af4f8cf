"""Can the measurements be taken at face value? What disturbed the run is named, in words and in codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.report.schema import RunWarning, TrainingSummary, Validity

if TYPE_CHECKING:
    from jobs.report.schema import GpuPhase, HostPhase
    from jobs.telemetry.sampler.messages import UsageBeforeRun

THROTTLED_RATIO: Final = 0.05
ENERGY_TOLERANCE_RATIO: Final = 0.1
FOREIGN_MEMORY_BYTES: Final = 256 * 2**20
"""More than a driver, a display or a monitoring agent leaves on a GPU."""
FOREIGN_UTIL_PERCENT: Final = 5.0
STARVED_UTIL_PERCENT: Final = 50.0
BUSY_THREAD_PERCENT: Final = 90.0

SUSPECT: Final = frozenset(
    {
        "gpu_throttled",
        "gpu_ecc_errors",
        "gpu_xid_errors",
        "gpu_row_remaps",
        "gpu_memory_in_use_before_start",
        "gpu_busy_before_start",
        "gpu_other_processes",
        "cpu_quota_throttled",
        "resumed_on_other_hardware",
    }
)
"""Warnings after which a run's speed is not the machine's."""


def judge(*, on_gpu: bool, training: TrainingSummary | None, warnings: list[RunWarning]) -> Validity:
    """The verdict on a run, from its warnings and from what could be read of its GPU during training.

    A run on a GPU whose throttling is not known, or of whose training a part was not watched, is never ``ok``.
    """
    codes = {warning.code for warning in warnings}
    gpu = None if training is None else training.gpu
    known = {
        "throttling": gpu is not None and gpu.throttle_s is not None,
        "memory errors": gpu is not None and gpu.ecc_uncorrected_errors is not None,
        "XID errors": gpu is not None and gpu.xid_errors is not None,
    }
    unknown = [name for name, is_known in known.items() if on_gpu and not is_known]
    causes = sorted(codes & SUSPECT)
    if causes:
        return Validity(status="suspect", causes=causes, not_checked=unknown)
    broke_off = on_gpu and bool(codes & INCOMPLETE_CODES)
    return Validity(
        status="unchecked" if broke_off or "throttling" in unknown else "ok", causes=[], not_checked=unknown
    )


INCOMPLETE_CODES: Final = frozenset({"telemetry_failed", "telemetry_died", "telemetry_hangs", "resumed"})
"""Warnings after which a part of the run went unwatched."""


def training_warnings(training: TrainingSummary) -> list[RunWarning]:
    """What steady training's own figures say against it."""
    found = []
    if training.gpu is not None:
        found += _gpu_warnings(training.gpu, training.duration_s)
    if training.host is not None:
        found += _host_warnings(training.host, training.gpu, training.duration_s)
    return found


def _gpu_warnings(gpu: GpuPhase, duration_s: float) -> list[RunWarning]:
    found = []
    if gpu.throttle_s and duration_s > 0:
        # Causes may overlap: the longest alone is the least that the GPU was held back.
        cause, seconds = max(gpu.throttle_s.items(), key=lambda item: item[1])
        if seconds > THROTTLED_RATIO * duration_s:
            text = f"the GPU ran at lowered clocks for {100 * seconds / duration_s:.0f} % of training ({cause})"
            found.append(RunWarning(code="gpu_throttled", message=text))
    errors = (gpu.ecc_corrected_errors or 0, gpu.ecc_uncorrected_errors or 0)
    if any(errors):
        text = f"{errors[0]} corrected and {errors[1]} uncorrected memory errors during training"
        found.append(RunWarning(code="gpu_ecc_errors", message=text))
    remaps = (gpu.row_remaps_corrected or 0) + (gpu.row_remaps_uncorrected or 0)
    if remaps:
        text = f"{remaps} memory rows were remapped during training"
        found.append(RunWarning(code="gpu_row_remaps", message=text))
    if gpu.xid_errors:
        text = f"the driver reported XID {', '.join(map(str, gpu.xid_errors))} during training"
        found.append(RunWarning(code="gpu_xid_errors", message=text))
    return found + _energy_warning(gpu)


def _energy_warning(gpu: GpuPhase) -> list[RunWarning]:
    counted_j, from_power_j = gpu.energy_j, gpu.energy_from_power_j
    if gpu.power_w is None or gpu.power_w.quality != "ok" or not counted_j or from_power_j is None:
        return []
    if abs(from_power_j / counted_j - 1) <= ENERGY_TOLERANCE_RATIO:
        return []
    text = f"the energy counter says {counted_j:.0f} J for training, power times time says {from_power_j:.0f} J"
    return [RunWarning(code="energy_disagrees", message=text)]


def _host_warnings(host: HostPhase, gpu: GpuPhase | None, duration_s: float) -> list[RunWarning]:
    found = []
    if host.cgroup_throttled_s and host.cgroup_throttled_s > THROTTLED_RATIO * duration_s > 0:
        text = (
            f"the cgroup's CPU quota held the job back for {host.cgroup_throttled_s:.1f} s of {duration_s:.1f} s of "
            "training, summed over its threads; raise the CPU limit"
        )
        found.append(RunWarning(code="cpu_quota_throttled", message=text))
    busy = gpu and (gpu.sm_util_percent or gpu.util_percent)
    thread = host.main_thread_percent
    if busy and thread and busy.mean < STARVED_UTIL_PERCENT and thread.mean > BUSY_THREAD_PERCENT:
        text = (
            f"the GPU waits for the CPU: its main thread is busy {thread.mean:.0f} % of training, "
            f"the GPU {busy.mean:.0f} %"
        )
        found.append(RunWarning(code="gpu_waits_for_cpu", message=text))
    return found


def foreign_work_warnings(baseline: UsageBeforeRun | None, other_process_count: int | None) -> list[RunWarning]:
    """Signs of others' work on the GPU, before the job touched it and at its end."""
    found = []
    if baseline is not None:
        used = baseline.memory_used_bytes or 0.0
        if used > FOREIGN_MEMORY_BYTES:
            text = f"{used / 2**30:.1f} GiB of the GPU's memory were in use before the job started"
            found.append(RunWarning(code="gpu_memory_in_use_before_start", message=text))
        # Without anyone's memory or process it is the driver itself, which checks the memory when it starts.
        if (baseline.util_percent or 0.0) > FOREIGN_UTIL_PERCENT and (found or baseline.processes):
            text = f"the GPU was {baseline.util_percent:.0f} % busy before the job started"
            found.append(RunWarning(code="gpu_busy_before_start", message=text))
    others = max(other_process_count or 0, (baseline.processes or 0) if baseline is not None else 0)
    if others:
        text = f"{others} other compute process{'es' if others > 1 else ''} used the GPU"
        found.append(RunWarning(code="gpu_other_processes", message=text))
    return found
