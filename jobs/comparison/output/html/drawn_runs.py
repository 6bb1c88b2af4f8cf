"""What the figures draw of the runs, collected in one pass: a row may be made anew each time that it is read."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.comparison.input.metrics import TRAINED_TO_THE_END

if TYPE_CHECKING:
    from jobs.choices import FrameworkName
    from jobs.comparison.schema import Section
    from jobs.comparison.schema_base import MetricName
    from jobs.report.schema import PhaseName

COSTS: Final[tuple[MetricName, ...]] = ("train_wall_s", "gpu_energy_j")
"""What an accuracy is drawn against."""


class EndedRun(NamedTuple):
    """A run that trained to its end: its test accuracy, and each of :data:`COSTS`."""

    run_id: str
    accuracy: float
    costs: tuple[float | None, ...]


@dataclass
class DrawnRuns:
    """The runs of one side; ``phases_s`` has each phase's times in the ``completed`` runs that have it."""

    completed: int = 0
    phases_s: dict[PhaseName, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    ended: list[EndedRun] = field(default_factory=list)
    why_no_energy: set[str] = field(default_factory=set)


def drawn_runs(section: Section) -> dict[FrameworkName, DrawnRuns]:
    """The runs of each side, in the section's order."""
    drawn = {side.framework: DrawnRuns() for side in section.sides}
    for row in section.runs:
        side = drawn[row.framework]
        if row.status == "completed":
            side.completed += 1
            for phase, time_s in row.phases_s.items():
                side.phases_s[phase].append(time_s)
        accuracy = row.metrics["test_accuracy_ratio"]
        if accuracy is not None and row.status in TRAINED_TO_THE_END:
            side.ended.append(EndedRun(row.run_id, accuracy, tuple(row.metrics[cost] for cost in COSTS)))
        if "gpu_energy_j" in row.missing:
            side.why_no_energy.add(row.missing["gpu_energy_j"])
    return drawn
