"""Decides whether a run's measurements are valid, and warns of what disturbed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobs.report.measuring import MIN_COVERAGE_RATIO
from jobs.report.schema import RunWarning, TrainingSummary, Validity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.report.schema import GpuPhase, HostPhase
    from jobs.telemetry.types import NvmlDevice

THROTTLED_RATIO: Final = 0.05
ENERGY_TOLERANCE_RATIO: Final = 0.1
POWER_CAP: Final = "power_cap"
MPS_SERVER: Final = "NVIDIA's MPS server"
VOLTAGE_LIMITS: Final = ("board_limit", "reliability")
"""The highest voltage at which the board may operate, and the highest at which the chip is reliable.

nvml.h of CUDA 13.5 calls these policies "board limit (operating)" and "reliability"; NVIDIA's NVAPI names the two
voltages. They are set when the board is built and end the range of clocks: a GPU that nothing else limits is at one.
"""
SLOWDOWN_CAUSES: Final = ("sw_thermal", "hw_thermal", "hw_power_brake", "hw_slowdown")
"""A run on a GPU whose slowdowns by one of these are not known is not ``ok``."""
MIN_GAP_S: Final = 0.5
"""A shorter time without a reading is no sign of a lost GPU, unless a reading failed."""
INSTANTS: Final = ("sm_clock_hz", "memory_clock_hz")
"""Metrics of which every GPU gives instants. Power may be an average, which would cover a part of a gap."""
POWER_LIMIT: Final = "throttling by a lowered power limit"
OTHER_PROCESSES: Final = "other processes"
OTHERS_MEMORY_BYTES: Final = 256 * 2**20
"""More than a driver, a display or a monitoring agent uses on a GPU."""
OTHERS_UTIL_PERCENT: Final = 5.0
STARVED_UTIL_PERCENT: Final = 50.0
BUSY_THREAD_PERCENT: Final = 90.0

SUSPECT_CODES: Final = frozenset(
    {"gpu_throttled", "gpu_ecc_errors", "gpu_xid_errors", "gpu_row_remaps", "cpu_quota_throttled"}
    | {"gpu_memory_in_use_before_start", "gpu_busy_before_start", "gpu_other_processes", "resumed_on_other_hardware"}
)
"""Warnings after which a run's speed does not represent the machine."""

INCOMPLETE_CODES: Final = frozenset(
    {"telemetry_failed", "telemetry_died", "telemetry_hangs", "resumed", "gpu_not_read"}
)
"""Warnings after which a part of the run was not sampled."""


def assess_validity(
    *, on_gpu: bool, training: TrainingSummary | None, warnings: list[RunWarning], unknown: Sequence[str] = ()
) -> Validity:
    """The validity of a run, from its warnings and from the GPU's metrics during training.

    A run on a GPU is never ``ok`` if its throttling is not known or a part of its training was not sampled.
    ``unknown`` is what else could not be checked: :data:`POWER_LIMIT` and :data:`OTHER_PROCESSES`.
    """
    codes = {warning.code for warning in warnings}
    gpu = None if training is None else training.gpu
    throttling = (gpu.throttle_s if gpu is not None else None) or {}
    checked = {
        "throttling": bool(throttling),
        **{f"throttling by {cause}": not throttling or cause in throttling for cause in SLOWDOWN_CAUSES},
        "memory errors": gpu is not None and gpu.ecc_uncorrected_errors is not None,
        "XID errors": gpu is not None and gpu.xid_errors is not None,
    }
    not_checked = [name for name in [*(name for name, is_known in checked.items() if not is_known), *unknown] if on_gpu]
    causes = sorted(codes & SUSPECT_CODES)
    if causes:
        return Validity(status="suspect", causes=causes, not_checked=not_checked)
    is_unchecked = any(name.startswith("throttling") for name in not_checked)
    is_unchecked |= on_gpu and bool(codes & INCOMPLETE_CODES)
    return Validity(status="unchecked" if is_unchecked else "ok", causes=[], not_checked=not_checked)


def training_warnings(
    training: TrainingSummary, *, is_power_limit_lowered: bool | None = False, has_lost_readings: bool = False
) -> list[RunWarning]:
    """Warnings from the metrics of steady training.

    A GPU at its own power or voltage limit works as it was built: a T4 holds its power limit in every run. The run is
    suspect only if the power limit was lowered (``None``: not known). ``has_lost_readings``: a reading failed.
    """
    gpu, host, duration_s = training.gpu, training.host, training.duration_s
    warnings: dict[str, str] = {}
    if gpu is not None:
        warnings |= _throttle_warnings(gpu, duration_s, is_power_limit_lowered=is_power_limit_lowered)
        warnings |= _gap_warning(gpu, duration_s, has_lost_readings=has_lost_readings)
        warnings |= _error_warnings(gpu) | _energy_warning(gpu)
    if host is not None:
        warnings |= _host_warnings(host, gpu, duration_s)
    return _to_warnings(warnings)


def may_hold_lowered_limit(training: TrainingSummary, *, is_power_limit_lowered: bool | None) -> bool:
    """Whether the GPU may have been slowed by a power limit that someone lowered, which could not be checked."""
    if training.gpu is None or training.gpu.throttle_s is None or is_power_limit_lowered is False:
        return False
    held_s = training.gpu.throttle_s.get(POWER_CAP)
    is_held = held_s is not None and held_s > THROTTLED_RATIO * training.duration_s
    return held_s is None or (is_held and is_power_limit_lowered is None)


def _to_warnings(texts: dict[str, str]) -> list[RunWarning]:
    return [RunWarning(code=code, message=text) for code, text in texts.items()]


def _throttle_warnings(gpu: GpuPhase, duration_s: float, *, is_power_limit_lowered: bool | None) -> dict[str, str]:
    shares = {cause: seconds / duration_s for cause, seconds in (gpu.throttle_s or {}).items() if duration_s > 0}
    warnings = {}
    capped = shares.pop(POWER_CAP, 0.0)
    if capped > THROTTLED_RATIO and not is_power_limit_lowered:
        text = f"the GPU held its power limit for {100 * capped:.0f} % of training"
        is_known = is_power_limit_lowered is not None
        remark = ", which is normal under load" if is_known else "; whether someone lowered the limit is not known"
        warnings["gpu_at_power_limit"] = text + remark
    elif capped:
        shares[f"{POWER_CAP}, at a power limit below the board's default"] = capped
    # They may overlap, so the longer one is named.
    limit, held = max(((name, shares.pop(name, 0.0)) for name in VOLTAGE_LIMITS), key=lambda item: item[1])
    if held > THROTTLED_RATIO:
        text = f"the GPU was at its own voltage limit for {100 * held:.0f} % of training ({limit})"
        warnings["gpu_at_voltage_limit"] = f"{text}, which is normal at the highest clocks"
    # It is set with these two, which say more.
    if max(shares.get("hw_thermal", 0.0), shares.get("hw_power_brake", 0.0)) > THROTTLED_RATIO:
        shares.pop("hw_slowdown", None)
    # Causes may overlap, so their sum may exceed the time at lowered clocks; the longest one does not.
    cause, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    if share > THROTTLED_RATIO:
        warnings["gpu_throttled"] = f"the GPU ran at lowered clocks for {100 * share:.0f} % of training ({cause})"
    return warnings


def _gap_warning(gpu: GpuPhase, duration_s: float, *, has_lost_readings: bool) -> dict[str, str]:
    """A GPU that gave no reading for a large part of training, as one that was lost."""
    metrics = [metric for metric in (getattr(gpu, name) for name in INSTANTS) if metric is not None]
    # Without any of these, other checks say that they lack.
    coverage = max((metric.coverage_ratio for metric in metrics or filter(None, [gpu.power_w])), default=1.0)
    gap_s = (1 - coverage) * duration_s
    if coverage >= MIN_COVERAGE_RATIO or (gap_s < MIN_GAP_S and not has_lost_readings):
        return {}
    return {"gpu_not_read": f"the GPU gave no reading for {100 * (1 - coverage):.0f} % of training"}


def _error_warnings(gpu: GpuPhase) -> dict[str, str]:
    warnings = {}
    corrected, uncorrected = gpu.ecc_corrected_errors or 0, gpu.ecc_uncorrected_errors or 0
    if corrected or uncorrected:
        errors = f"{corrected} corrected and {uncorrected} uncorrected"
        warnings["gpu_ecc_errors"] = f"{errors} memory errors during training"
    remaps = (gpu.row_remaps_corrected or 0) + (gpu.row_remaps_uncorrected or 0)
    if remaps:
        warnings["gpu_row_remaps"] = f"{remaps} memory rows were remapped during training"
    if gpu.xid_errors:
        numbers = ", ".join(map(str, gpu.xid_errors))
        warnings["gpu_xid_errors"] = f"the driver reported XID {numbers} during training"
    return warnings


def _energy_warning(gpu: GpuPhase) -> dict[str, str]:
    counted_j, from_power_j = gpu.energy_j, gpu.energy_from_power_j
    if gpu.power_w is None or gpu.power_w.quality != "ok" or not counted_j or from_power_j is None:
        return {}
    if abs(from_power_j / counted_j - 1) <= ENERGY_TOLERANCE_RATIO:
        return {}
    text = f"the energy counter says {counted_j:.0f} J for training, power times time says {from_power_j:.0f} J"
    return {"energy_disagrees": text}


def _host_warnings(host: HostPhase, gpu: GpuPhase | None, duration_s: float) -> dict[str, str]:
    warnings = {}
    if host.cgroup_throttled_s and host.cgroup_throttled_s > THROTTLED_RATIO * duration_s > 0:
        warnings["cpu_quota_throttled"] = (
            f"the cgroup's CPU quota throttled the job for {host.cgroup_throttled_s:.1f} s of {duration_s:.1f} s of "
            "training, summed over its threads; raise the CPU limit"
        )
    busy = gpu and (gpu.sm_util_percent or gpu.util_percent)
    thread = host.main_thread_percent
    if busy and thread and busy.mean < STARVED_UTIL_PERCENT and thread.mean > BUSY_THREAD_PERCENT:
        warnings["gpu_waits_for_cpu"] = (
            f"the GPU waits for the CPU: its main thread is busy {thread.mean:.0f} % of training, "
            f"the GPU {busy.mean:.0f} %"
        )
    return warnings


def other_work_warnings(
    before: NvmlDevice | None, other_process_count: int | None, *, mps_servers: int
) -> list[RunWarning]:
    """Warnings of other processes' use of the GPU, ``before`` the job used it and at its end.

    ``mps_servers`` are not among the other processes: they only pass on the work of others, which are counted.
    """
    warnings = {}
    if before is not None:
        used = before.memory_used_bytes or 0.0
        if used > OTHERS_MEMORY_BYTES:
            text = f"{used / 2**30:.1f} GiB of the GPU's memory were in use before the job started"
            warnings["gpu_memory_in_use_before_start"] = text
        # Utilization without another's memory or process is the driver's, which checks the memory when it starts.
        if (before.util_percent or 0.0) > OTHERS_UTIL_PERCENT and (warnings or before.processes):
            text = f"the GPU was {before.util_percent:.0f} % busy before the job started"
            warnings["gpu_busy_before_start"] = text
    others = max(other_process_count or 0, (before.processes or 0) if before is not None else 0)
    if others:
        text = f"{others} other compute process{'es' if others > 1 else ''} used the GPU"
        warnings["gpu_other_processes"] = text
    if mps_servers:
        warnings["gpu_mps_server"] = f"the GPU is shared through {MPS_SERVER}, which does not count as another process"
    return _to_warnings(warnings)
