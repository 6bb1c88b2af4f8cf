"""The time of a run by phase, as stacked bars."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, get_args

from jobs.comparison.output.html import svg
from jobs.comparison.output.html.figure import DISPLAY_NAMES, FigureBlock
from jobs.comparison.output.tables import Table
from jobs.comparison.text import ABSENT, number, pluralize
from jobs.report.schema import PhaseName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.output.html.drawn_runs import DrawnRuns

_LABELS: Final[dict[PhaseName, str]] = {phase: phase.replace("_", " ") for phase in get_args(PhaseName)}
"""In the order of a run's phases."""

_LANE: Final = 56


def phases_figure(runs: Mapping[FrameworkName, DrawnRuns]) -> FigureBlock:
    """The median time of completed runs in each phase, side by side."""
    title = "Where the time goes"
    stacks: dict[FrameworkName, dict[PhaseName, float]] = {}
    counts: list[str] = []
    for framework, side in runs.items():
        # A run without a phase spent no time in it.
        stack = {
            phase: median([*times, *[0.0] * (side.completed - len(times))])
            for phase in _LABELS
            if (times := side.phases_s.get(phase))
        }
        if stack:
            stacks[framework] = stack
            counts.append(pluralize(side.completed, f"{DISPLAY_NAMES[framework]} run"))
    if not stacks:
        return FigureBlock(title=title, note="No completed run has phases.")
    present = [phase for phase in _LABELS if any(phase in stack for stack in stacks.values())]
    scale = svg.linear_scale([0.0, *(sum(stack.values()) for stack in stacks.values())])
    height = _LANE * len(stacks)
    return FigureBlock(
        title=title,
        caption=(
            f"Median time in each phase, over {' and '.join(counts)}. Steady training, by which the verdict is "
            "reached, is the train phase alone; the first step compiles."
        ),
        legend=tuple((_class(phase), _LABELS[phase]) for phase in present),
        drawing=(
            *(_lane(side, stack, scale, top=_LANE * index) for index, (side, stack) in enumerate(stacks.items())),
            svg.x_axis(scale, y=height, title="seconds"),
        ),
        description="; ".join(
            f"{DISPLAY_NAMES[side]}: {', '.join(f'{_LABELS[phase]} {number(stack[phase])} s' for phase in stack)}"
            for side, stack in stacks.items()
        ),
        height=height + svg.AXIS_HEIGHT + svg.AXIS_TITLE_HEIGHT,
        table=Table(
            ["phase", *(f"{DISPLAY_NAMES[framework]}, s" for framework in stacks)],
            [
                [_LABELS[phase], *(number(stack[phase]) if phase in stack else ABSENT for stack in stacks.values())]
                for phase in present
            ],
        ),
    )


def _lane(framework: FrameworkName, stack: dict[PhaseName, float], scale: svg.Scale, *, top: float) -> Markup:
    parts = svg.lane_heading(DISPLAY_NAMES[framework], f"{number(sum(stack.values()))} s", y=top + 15)
    start_s = 0.0
    for phase, time_s in stack.items():
        parts += svg.bar(scale, start_s, start_s + time_s, y=top + 22, height=24, class_=f"segment {_class(phase)}")
        start_s += time_s
    return parts


def _class(phase: PhaseName) -> str:
    return f"phase-{phase.replace('_', '-')}"
