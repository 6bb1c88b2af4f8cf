"""Measures the device's matrix-product peak after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.training.failure import is_out_of_memory

if TYPE_CHECKING:
    from jobs.adapter import Framework, RunSpec
    from jobs.training.loop import TrainingEnd


def measure_peak(
    framework: Framework, spec: RunSpec, end: TrainingEnd, *, wanted: bool | None
) -> tuple[float | None, dict[str, str]]:
    """The peak in operations per second, or ``None`` and the reason by report path. To be called in no phase.

    ``wanted`` is the option; ``None`` measures on a GPU only.
    """
    if not (spec.device == "gpu" if wanted is None else wanted):
        return None, {}
    reason = "the run did not complete"
    if end.status == "completed":
        try:
            return framework.matmul_flop_per_s(spec), {}
        except Exception as error:  # noqa: BLE001 - the run has trained, and is reported in any case
            no_memory = is_out_of_memory(error, framework)
            reason = "its matrices found too little memory" if no_memory else f"{type(error).__name__}: {error}"
    fields = ("results.ceiling_flop_per_s", "results.ceiling_share_ratio")
    return None, dict.fromkeys(fields, f"not measured: {reason}")
