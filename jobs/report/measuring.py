"""How long a run must train for its GPU figures to be judged."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobs.report.schema import Quality, Report

MIN_READINGS: Final = 20
MIN_DURATION_S: Final = 3.0
MIN_COVERAGE_RATIO: Final = 0.9
"""Below any of these a figure is ``insufficient``."""

LONG_ENOUGH_S: Final = 30.0
"""Training this long has hundreds of readings of the GPU; an error of 0.1 s at its ends is less than 1 %."""

GPU_FIGURES: Final = ("util_percent", "sm_util_percent", "power_w", "energy_j")
"""The figures of ``training.gpu`` that a comparison shows."""


def quality_of(*, readings: int, duration_s: float, coverage_ratio: float) -> Quality:
    """Whether a figure from this many readings, over this time, can be judged."""
    is_enough = readings >= MIN_READINGS and duration_s >= MIN_DURATION_S and coverage_ratio >= MIN_COVERAGE_RATIO
    return "ok" if is_enough else "insufficient"


def is_too_short(report: Report, name: str) -> bool:
    """Whether the figure ``name`` of ``training.gpu`` cannot be judged because the run trained for too short a time."""
    training, capability = report.training, report.telemetry.capabilities.get(name)
    if training is None or training.gpu is None:
        return False
    figure = getattr(training.gpu, name)
    is_short = training.duration_s < MIN_DURATION_S
    if figure is None:
        # It was read without an error. So the train phases are shorter than the time that one reading stands for.
        was_read = capability is not None and capability.supported and capability.error is None
        return was_read and (is_short or name != "energy_j")
    if name == "energy_j":
        return is_short
    lost_readings = figure.n >= MIN_READINGS and figure.coverage_ratio < MIN_COVERAGE_RATIO
    return figure.quality != "ok" and (is_short or not lost_readings)


def too_short_text(train_s: float, *, repeat: int, epochs: int) -> str:
    """What to do about a run that trained for ``train_s`` in ``repeat`` trainings of ``epochs`` epochs."""
    factor = max(LONG_ENOUGH_S / train_s, 2.0) if train_s > 0 else 2.0
    return (
        f"too short to judge: {training_text(train_s)}; "
        f"use --repeat {ceil(repeat * factor)} or --epochs {ceil(epochs * factor)}"
    )


def training_text(train_s: float) -> str:
    """``train_s`` with two digits."""
    return f"{f'{train_s:.2g}' if train_s < 10 else f'{train_s:.0f}'} s of training"
