"""The comparison on a terminal: one table a section, its verdict under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from jobs.comparison.analysis.parity import OUTCOME
from jobs.comparison.analysis.parity_verdict import FAILED, unpaired_line
from jobs.comparison.output import tables
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.comparison.schema import Comparison, Gate, Section

UNPAIRED_SHOWN: Final = 10


def render_terminal(comparison: Comparison, console: Console) -> None:
    """Print ``comparison``; text out of reports reaches the terminal without markup or control characters."""
    for section in comparison.sections:
        console.print(_table(section))
        console.print(_line(section.verdict.text, style="bold"))
        console.print(_line(section.parity.text, style="bold red" if section.parity.outcome == "differ" else ""))
        differing = [difference.field for difference in section.differences]
        if differing:
            console.print(_line(f"differs, see comparison.md: {', '.join(differing)}"))
        absent = tables.unmeasured(section)
        if absent:
            console.print(_line(f"not measured, see comparison.md: {', '.join(absent)}"))
        for line in tables.fleet_lines(section):
            console.print(_line(line))
        console.print()
    if comparison.gate is not None:
        _print_gate(comparison.gate, console)
    if not comparison.sections:
        for pair in comparison.parity:
            style = "bold red" if pair.outcome in FAILED else ""
            console.print(_line(f"parity of {pair.recipe}: {OUTCOME[pair.outcome]}; {pair.text}", style=style))
    for trace in comparison.unpaired_traces[:UNPAIRED_SHOWN]:
        console.print(_line(unpaired_line(trace)))


def _print_gate(gate: Gate, console: Console) -> None:
    console.print(_line(f"against the baseline: {gate.outcome}", style="bold"))
    for side in gate.sides:
        console.print(_line(f"{side.recipe}, {side.protocol}, {side.framework}: {side.text}"))
    for line in gate.triage:
        console.print(_line(line))
    console.print()


def _line(text: str, *, style: str = "") -> Text:
    return Text(escape_control_chars(text), style=style)


def _table(section: Section) -> Table:
    ratio = tables.ratio_heading(section)
    table = Table(title=_line(f"{section.recipe}, {section.protocol}"), title_justify="left")
    table.add_column("median (IQR)")
    for side in section.sides:
        table.add_column(_line(tables.side_heading(side)), justify="right")
    if ratio is not None:
        table.add_column(_line(ratio), justify="right")
    table.add_row("runs", *(_line(cell) for cell in tables.runs_row(section)), *([] if ratio is None else [""]))
    for cells in tables.metric_rows(section):
        table.add_row(*(_line(cell) for cell in cells))
    return table
