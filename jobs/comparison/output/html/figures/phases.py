"""Where the time of a run goes: its phases, stacked."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from matplotlib.patches import Patch

from jobs.comparison.output.html.figures.figure import Thousands, absent, drawn, lane_value, lanes, place
from jobs.comparison.output.html.theme import LOOK, PAPER, PHASE
from jobs.comparison.text import ABSENT, counted, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.comparison.output.html.figures.figure import FigureBlock, Width
    from jobs.comparison.schema import Section
    from jobs.report.schema import FrameworkName, PhaseName

_BAR, _TOP, _LEGEND, _FOOT = 44, 8, 26, 44


def phases_plate(section: Section, name: str) -> FigureBlock:
    """The median time of completed runs in each phase, side by side."""
    title = "Where the time goes"
    stacks: dict[FrameworkName, dict[PhaseName, float]] = {}
    runs: dict[FrameworkName, int] = {}
    for side in section.sides:
        completed = [row for row in section.runs if row.framework == side.framework and row.status == "completed"]
        present = [phase for phase in PHASE if any(phase in row.phases_s for row in completed)]
        if present:
            stacks[side.framework] = {
                phase: median(row.phases_s.get(phase, 0.0) for row in completed) for phase in present
            }
            runs[side.framework] = len(completed)
    if not stacks:
        return absent(name=name, title=title, reason="No completed run has phases.")
    present = [phase for phase in PHASE if any(phase in stack for stack in stacks.values())]
    longest = max(sum(stack.values()) for stack in stacks.values())

    # Seven names stand in one line of a wide page, and three of a narrow one.
    legends: dict[Width, float] = {"wide": _LEGEND, "narrow": 10 + 18 * -(-len(present) // 3)}

    def paint(figure: Figure, width: Width) -> None:
        legend = legends[width]
        left, right = (96.0, 76.0) if width == "wide" else (84.0, 60.0)
        axes = place(figure, left=left, right=right, top=_TOP + legend, height=_BAR * len(stacks))
        for lane, stack in enumerate(stacks.values()):
            start = 0.0
            for phase, duration in stack.items():
                # A hair of background between neighbours tells them apart where colours do not.
                axes.barh([lane], [duration], left=[start], height=0.62, color=PHASE[phase], linewidth=0)
                if start > 0:
                    axes.plot([start, start], [lane - 0.32, lane + 0.32], color=PAPER, linewidth=1.2)
                start += duration
            lane_value(axes, lane, f"{number(start)} s", right=right)
        lanes(axes, [LOOK[framework].label for framework in stacks], left=left)
        axes.set_xlim(0, longest or 1)
        axes.locator_params(axis="x", nbins=6 if width == "wide" else 4)
        axes.xaxis.set_major_formatter(Thousands())
        axes.set_xlabel("seconds")
        figure.legend(
            handles=[Patch(color=PHASE[phase], label=phase.replace("_", " ")) for phase in present],
            loc="upper left",
            bbox_to_anchor=(0, 1),
            ncols=len(present) if width == "wide" else 3,
            frameon=False,
            handlelength=0.9,
            handleheight=0.9,
            handletextpad=0.5,
            columnspacing=1.4,
            borderaxespad=0,
            borderpad=0,
            fontsize=12 if width == "wide" else 11,
        )

    bars = _TOP + _BAR * len(stacks) + _FOOT
    rows = [
        [phase.replace("_", " "), *(number(stack[phase]) if phase in stack else ABSENT for stack in stacks.values())]
        for phase in present
    ]
    return drawn(
        paint,
        name=name,
        title=title,
        caption=(
            "Median time in each phase, over "
            + " and ".join(f"{counted(count, f'{LOOK[framework].label} run')}" for framework, count in runs.items())
            + ". Steady training, by which the verdict is reached, is the train phase alone; the first step compiles."
        ),
        description="; ".join(
            f"{framework}: "
            + ", ".join(f"{phase.replace('_', ' ')} {number(value)} s" for phase, value in stack.items())
            for framework, stack in stacks.items()
        ),
        heights={width: bars + legend for width, legend in legends.items()},
        headings=["phase", *(f"{LOOK[framework].label}, s" for framework in stacks)],
        rows=rows,
    )
