"""Where the time of a run goes: its phases, stacked."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from matplotlib.patches import Patch

from jobs.comparison.html.figures.plate import absent, drawn, place
from jobs.comparison.html.theme import INK, PAPER, PHASE
from jobs.comparison.text import ABSENT, counted, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.comparison.html.figures.plate import Plate, Width
    from jobs.comparison.model import Section
    from jobs.report.schema import PhaseName

_BAR, _TOP, _LEGEND, _FOOT = 44, 8, 26, 44
_NARROW_LEGEND: Final = 72


def phases_plate(section: Section, name: str) -> Plate:
    """The median time of completed runs in each phase, side by side."""
    title = "Where the time goes"
    stacks: dict[str, dict[PhaseName, float]] = {}
    runs: dict[str, int] = {}
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

    def paint(figure: Figure, width: Width) -> None:
        legend = _LEGEND if width == "wide" else _NARROW_LEGEND
        right = 76 if width == "wide" else 58
        axes = place(
            figure, left=92 if width == "wide" else 84, right=right, top=_TOP + legend, height=_BAR * len(stacks)
        )
        for lane, stack in enumerate(stacks.values()):
            start = 0.0
            for phase, duration in stack.items():
                # A hair of background between neighbours tells them apart where colours do not.
                axes.barh([lane], [duration], left=[start], height=0.62, color=PHASE[phase], linewidth=0)
                if start > 0:
                    axes.plot([start, start], [lane - 0.32, lane + 0.32], color=PAPER, linewidth=1.2)
                start += duration
            axes.annotate(
                f"{number(start)} s", (1, lane), xycoords=("axes fraction", "data"), xytext=(10, 0),
                textcoords="offset points", va="center", color=INK, fontweight="bold",
            )  # fmt: skip
        axes.set_yticks(range(len(stacks)), list(stacks))
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
        axes.set_ylim(len(stacks) - 0.5, -0.5)
        axes.set_xlim(0, longest or 1)
        axes.locator_params(axis="x", nbins=6 if width == "wide" else 4)
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
            + " and ".join(f"{counted(count, f'{framework} run')}" for framework, count in runs.items())
            + ". Steady training, by which the verdict is reached, is the train phase alone; the first step compiles."
        ),
        description="; ".join(
            f"{framework}: "
            + ", ".join(f"{phase.replace('_', ' ')} {number(value)} s" for phase, value in stack.items())
            for framework, stack in stacks.items()
        ),
        heights={"wide": float(bars + _LEGEND), "narrow": float(bars + _NARROW_LEGEND)},
        headings=["phase", *(f"{framework}, s" for framework in stacks)],
        rows=rows,
    )
