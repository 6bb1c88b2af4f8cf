"""The conditions on the GPU that a run was measured under: other work on it, and its power limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobs.telemetry.types import NvmlDevice
from jobs.telemetry.validity import (
    OTHER_PROCESSES,
    POWER_LIMIT,
    may_hold_lowered_limit,
    other_work_warnings,
    training_warnings,
)

if TYPE_CHECKING:
    from jobs.report.schema import RunWarning, TrainingSummary
    from jobs.telemetry.sampler_process import SampleStore
    from jobs.telemetry.types import Message


class Conditions(NamedTuple):
    """Warnings, and what could not be checked."""

    warnings: list[RunWarning]
    unknown: list[str]


def of_training(training: TrainingSummary, store: SampleStore, *, has_lost_readings: bool) -> Conditions:
    """What slowed or disturbed training, by its metrics."""
    is_lowered = _is_power_limit_lowered(store)
    warnings = training_warnings(training, is_power_limit_lowered=is_lowered, has_lost_readings=has_lost_readings)
    is_unknown = may_hold_lowered_limit(training, is_power_limit_lowered=is_lowered)
    return Conditions(warnings, [POWER_LIMIT] if is_unknown else [])


def of_other_work(store: SampleStore, untouched_until_s: float | None) -> Conditions:
    """Other processes' use of the job's GPU; the job itself did not use it before ``untouched_until_s``, if known."""
    end = _end(store)
    others = end["other_process_count"]
    before = None if untouched_until_s is None else _usage_before(store, untouched_until_s)
    warnings = other_work_warnings(before, others, mps_servers=end["mps_servers"])
    is_unknown = others is None or (others == 0 and not end["are_all_listed"])
    return Conditions(warnings, [OTHER_PROCESSES] if is_unknown else [])


def devices(store: SampleStore) -> list[NvmlDevice]:
    """The machine's GPUs and MIG devices as they were at the start."""
    return [NvmlDevice(*device) for device in store.inventory["devices"]]


def _end(store: SampleStore) -> Message:
    """The last message of the GPU's loop; without one nothing is known."""
    unknown = {"other_process_count": None, "are_all_listed": False, "mps_servers": 0, "power_limit_w": None}
    return store.gpu_end or unknown


def _is_power_limit_lowered(store: SampleStore) -> bool | None:
    """Whether the limit at the start or at the end is below the one that the board boots with; ``None``: not known."""
    answer = store.device or {"facts": {}, "default_power_limit_w": None}
    limits_w = list(filter(None, [answer["facts"].get("power_limit_w"), _end(store)["power_limit_w"]]))
    default_w = answer["default_power_limit_w"]
    return min(limits_w) < 0.99 * default_w if limits_w and default_w else None


def _usage_before(store: SampleStore, untouched_until_s: float) -> NvmlDevice | None:
    """The use of the job's device before the job used it; ``None`` if not known."""
    inventory, answer = store.inventory, store.device
    if answer is None or inventory["at_s"] > untouched_until_s:
        return None
    uuid = answer["facts"].get("mig_uuid") or answer["facts"].get("uuid")
    return next((device for device in devices(store) if device.uuid == uuid), None) if uuid else None
