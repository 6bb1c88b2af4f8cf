"""The comparison on a terminal: one table a section, its verdict under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from jobs.comparison.analysis.parity import OUTCOME
from jobs.comparison.analysis.parity_verdict import FAILED, unpaired_line
from jobs.comparison.output import rank_tables, tables
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from jobs.comparison.schema import Comparison, Section

MAX_UNPAIRED: Final = 10
_ALARM: Final = "bold red"


def render_terminal(comparison: Comparison, console: Console) -> None:
    """Print ``comparison``; text from reports reaches the terminal without markup or control characters."""
    for section in comparison.sections:
        console.print(_table(section))
        for line, style in _section_lines(section):
            console.print(_text(line, style))
        console.print()
    _render_scaling(comparison, console)
    if comparison.gate is not None:
        console.print(_text(f"against the baseline: {comparison.gate.outcome}", "bold"))
        for side in comparison.gate.sides:
            console.print(_text(f"{side.title}, {side.framework}: {side.text}"))
        for line in comparison.gate.triage:
            console.print(_text(line))
        console.print()
    if not comparison.sections:
        for pair in comparison.parity:
            style = _ALARM if pair.outcome in FAILED else ""
            console.print(_text(f"parity of {pair.recipe}: {OUTCOME[pair.outcome]}; {pair.text}", style))
    for trace in comparison.unpaired_traces[:MAX_UNPAIRED]:
        console.print(_text(unpaired_line(trace)))


def _render_scaling(comparison: Comparison, console: Console) -> None:
    for series in comparison.scaling:
        console.print(_drawn(f"scaling of {series.title}", rank_tables.scaling_table(series)))
        if note := rank_tables.scaling_note(series):
            console.print(_text(note))
        console.print()
    if comparison.reduction_costs:
        console.print(_drawn("cost of exact sums", rank_tables.cost_table(comparison.reduction_costs)))
        for note in rank_tables.cost_notes(comparison.reduction_costs):
            console.print(_text(note))
        console.print()


def _section_lines(section: Section) -> Iterator[tuple[str, str]]:
    """Each line under a section's table, with its style."""
    yield section.verdict.text, "bold"
    yield section.parity.text, _ALARM if section.parity.outcome == "differ" else ""
    if section.differences:
        yield f"differs, see comparison.md: {', '.join(difference.field for difference in section.differences)}", ""
    unmeasured = tables.unmeasured_labels(section)
    if unmeasured:
        yield f"not measured, see comparison.md: {', '.join(unmeasured)}", ""
    for side in section.sides:
        if side.gpu_text is not None:
            yield f"{side.framework}: {side.gpu_text}", ""
    for line in tables.fleet_lines(section):
        yield line, ""
    for line in rank_tables.rank_lines(section):
        yield line, ""


def _text(text: str, style: str = "") -> Text:
    return Text(escape_control_chars(text), style=style)


def _table(section: Section) -> Table:
    return _drawn(section.title, tables.metric_table(section))


def _drawn(title: str, content: tables.Table) -> Table:
    table = Table(title=_text(title), title_justify="left")
    for index, heading in enumerate(content.headings):
        table.add_column(_text(heading), justify="right" if index else "left")
    for cells in content.rows:
        table.add_row(*map(_text, cells))
    return table
