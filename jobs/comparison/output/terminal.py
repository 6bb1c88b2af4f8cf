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

    from jobs.comparison.schema import Comparison, Section

MAX_UNPAIRED: Final = 10
_ALARM: Final = "bold red"


def render_terminal(comparison: Comparison, console: Console) -> None:
    """Print ``comparison``; text from reports reaches the terminal without markup or control characters."""

    def say(line: str, style: str = "") -> None:
        console.print(_text(line, style))

    for section in comparison.sections:
        console.print(_table(section))
        say(section.verdict.text, "bold")
        say(section.parity.text, _ALARM if section.parity.outcome == "differ" else "")
        for what, names in (
            ("differs", [difference.field for difference in section.differences]),
            ("not measured", tables.unmeasured_labels(section)),
        ):
            if names:
                say(f"{what}, see comparison.md: {', '.join(names)}")
        for line in tables.fleet_lines(section):
            say(line)
        console.print()
    if comparison.gate is not None:
        say(f"against the baseline: {comparison.gate.outcome}", "bold")
        for side in comparison.gate.sides:
            say(f"{side.recipe}, {side.protocol}, {side.framework}: {side.text}")
        for line in comparison.gate.triage:
            say(line)
        console.print()
    if not comparison.sections:
        for pair in comparison.parity:
            style = _ALARM if pair.outcome in FAILED else ""
            say(f"parity of {pair.recipe}: {OUTCOME[pair.outcome]}; {pair.text}", style)
    for trace in comparison.unpaired_traces[:MAX_UNPAIRED]:
        say(unpaired_line(trace))


def _text(text: str, style: str = "") -> Text:
    return Text(escape_control_chars(text), style=style)


def _table(section: Section) -> Table:
    metrics = tables.metric_table(section)
    table = Table(title=_text(f"{section.recipe}, {section.protocol}"), title_justify="left")
    for index, heading in enumerate(metrics.headings):
        table.add_column(_text(heading), justify="right" if index else "left")
    for cells in metrics.rows:
        table.add_row(*map(_text, cells))
    return table
