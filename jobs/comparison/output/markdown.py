"""The comparison as Markdown, for example for a pull request."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from jobs.comparison.output.templates import template_environment
from jobs.comparison.text import markdown

if TYPE_CHECKING:
    from jinja2 import Template

    from jobs.comparison.output.tables import Table
    from jobs.comparison.schema import Comparison

MAX_ROWS: Final = 50
"""Rows of one table or list; comparison.json and runs.csv have all."""


class _Escaped(str):
    """Markdown that is not escaped again."""

    __slots__ = ()


def render_markdown(comparison: Comparison) -> str:
    """``comparison`` as GitHub-flavoured Markdown; markup in text from reports is escaped."""
    return _template().render(comparison=comparison, max_rows=MAX_ROWS)


@cache
def _template() -> Template:
    # Not HTML: every expression passes through `finalize`, which escapes for Markdown.
    environment = template_environment(
        autoescape=False,
        finalize=_escape,
        paragraph_break=_Escaped("\n\n"),
        filters={"table": _table, "emphasis": lambda text: _Escaped(f"*{text}*")},
    )
    return environment.get_template("comparison.md.j2")


def _escape(value: object) -> str:
    return value if isinstance(value, _Escaped) else markdown(str(value))


def _table(table: Table) -> _Escaped:
    lines = [f"| {' | '.join(map(markdown, cells))} |" for cells in (table.headings, *table.rows[:MAX_ROWS])]
    lines.insert(1, f"|{' --- |' * len(table.headings)}")
    count = len(table.rows) + table.left_out
    if count > MAX_ROWS:
        lines += ["", f"The first {MAX_ROWS} of {count:,} rows; comparison.json has them all."]
    return _Escaped("\n".join(lines))
