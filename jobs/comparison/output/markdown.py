"""The comparison as Markdown that reads well in a pull request."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from jobs.comparison.analysis.parity_verdict import unpaired_line
from jobs.comparison.analysis.statistics import (
    ALPHA,
    FAMILYWISE_ALPHA,
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    UNSTABLE_SPREAD,
)
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.output import tables
from jobs.comparison.text import counted, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.comparison.schema import Comparison

_TEMPLATE: Final = "comparison.md.j2"


class _Ready(str):
    """Markdown of our own making, which is not escaped again."""

    __slots__ = ()


def render_markdown(comparison: Comparison) -> str:
    """``comparison`` as GitHub-flavoured Markdown; text out of reports is shown as it is, never as markup."""
    return _template().render(
        comparison=comparison,
        effect_percent=100 * (SMALLEST_EFFECT - 1),
        runs_for_a_verdict=RUNS_FOR_A_VERDICT,
        false_claims=ALPHA,
        false_claims_in_table=FAMILYWISE_ALPHA,
        unstable_spread=UNSTABLE_SPREAD,
        most_lost=MAX_FAILURE_RATE_GAP,
        rows_shown=tables.ROWS_SHOWN,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("jobs.comparison"),
        # Not HTML: every expression passes through `finalize`, which escapes for Markdown.
        autoescape=False,  # noqa: S701
        finalize=_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["tables"] = tables
    environment.filters |= {
        "counted": counted,
        "table": _table,
        "side_heading": tables.side_heading,
        "run_cells": tables.run_cells,
        "parity_row": tables.parity_row,
        "unpaired_line": unpaired_line,
    }
    return environment.get_template(_TEMPLATE)


def _escape(value: object) -> str:
    return value if isinstance(value, _Ready) else markdown(str(value))


def _table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> _Ready:
    head, *body = (f"| {' | '.join(map(markdown, cells))} |" for cells in (headings, *rows))
    return _Ready("\n".join([head, f"|{' --- |' * len(headings)}", *body]))
