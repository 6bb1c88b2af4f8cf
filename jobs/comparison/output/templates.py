"""Loads the Markdown and HTML templates, with what both use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs.comparison.analysis import statistics
from jobs.comparison.analysis.parity_verdict import unpaired_line
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.output import rank_tables, tables
from jobs.comparison.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable


def template_environment(
    *,
    autoescape: bool,
    finalize: Callable[[Any], Any],
    paragraph_break: str,
    filters: dict[str, Callable[..., Any]],
) -> Environment:
    """A strict environment; ``finalize`` gets the value of every expression.

    ``paragraph_break`` and the filter ``emphasis`` are the format's own, used by the shared text.
    """
    environment = Environment(
        loader=PackageLoader("jobs.comparison"),
        autoescape=autoescape,  # noqa: S701 - Markdown is escaped by `finalize`
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "tables": tables,
        "rank_tables": rank_tables,
        "paragraph_break": paragraph_break,
        "effect_percent": 100 * (statistics.SMALLEST_EFFECT - 1),
        "runs_for_a_verdict": statistics.RUNS_FOR_A_VERDICT,
        "alpha": statistics.ALPHA,
        "familywise_alpha": statistics.FAMILYWISE_ALPHA,
        "unstable_spread": statistics.UNSTABLE_SPREAD,
        "max_failure_rate_gap": MAX_FAILURE_RATE_GAP,
    }
    environment.filters |= {"pluralize": pluralize, "unpaired_line": unpaired_line, **filters}
    return environment
