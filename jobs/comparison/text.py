"""Makes text from reports safe on a terminal, in Markdown and in CSV, and formats numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT: Final = "—"
"""Shown where there is no measurement."""

CELL_LIMIT: Final = 32_000
"""Maximum length of one CSV cell in UTF-16 units, as spreadsheets count; they cut or split cells of over 32,767."""

# Inside a word an underscore or a hash needs no escape in Markdown.
_MARKDOWN: Final = re.compile(
    r"(?P<word>(?:#[0-9]+|[0-9A-Za-z-]+)+)|[\\`*\[\]|~$]|(?<![A-Za-z0-9])[_#]|_(?![A-Za-z0-9])"
)
# The number of an issue, or what may be that of a commit.
_REFERENCE: Final = re.compile(r"#|(?<![0-9A-Za-z])(?:gh-[0-9]|[0-9a-f]{7,40}(?![0-9A-Za-z]))", re.IGNORECASE)
# Some spreadsheets read full-width and small forms as the plain characters. The separator of cells depends on the
# locale, so a cell may begin after any of them. A tab is escaped by then.
_FORMULA: Final = re.compile(r'(^|[,;|])(?=[ "]*[=+\-@＝＋－＠﹦﹢﹣﹫−])')  # noqa: RUF001
_BREAKS: Final = ("\t", "\r", "\n")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def shortened(text: str, limit: int) -> str:
    """``text``, cut to ``limit`` characters; a longer one ends with its length."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def markdown(text: str) -> str:
    """``text`` escaped so that Markdown shows it as it is, without markup, HTML, mentions, references or links."""
    escaped = _MARKDOWN.sub(_escape, escape_control_chars(text))
    escaped = re.sub("[&<>]", lambda match: _ENTITIES[match[0]], escaped)
    # An entity keeps GitHub from linking an address; only a zero-width joiner keeps it from linking a mention.
    return escaped.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "@&#8205;")


def _escape(match: re.Match[str]) -> str:
    if match["word"] is None:
        return f"\\{match[0]}"
    # GitHub links references everywhere but in code, even behind a backslash.
    return f"`{match[0]}`" if _REFERENCE.search(match[0]) else match[0]


def csv_cell(text: str) -> str:
    """``text`` on one line of limited length, no part of which a spreadsheet runs as a formula (CSV injection)."""
    shown = _FORMULA.sub(r"\1'", escape_control_chars(text))
    units = shown.encode("utf-16-le")
    if len(units) > 2 * CELL_LIMIT:
        # A character of two units that is cut in the middle is left out.
        shown = f"{units[: 2 * CELL_LIMIT].decode('utf-16-le', 'ignore')}… ({len(shown):,} characters)"
    # A tab or line break at the start is escaped by now, but some spreadsheets undo that.
    return f"'{shown}" if text.startswith(_BREAKS) else shown


def number(value: float) -> str:
    """``value`` with about four significant digits."""
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3e}"
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{decimals}f}"


def ratio_text(value: float) -> str:
    """A ratio with three decimals; one that is far from 1 with three significant digits."""
    return f"{value:.3f}" if 1e-2 <= value < 1e6 else f"{value:.3g}"


def join_limited(texts: Sequence[str], limit: int, separator: str = ", ") -> str:
    """The first ``limit`` of ``texts`` joined, and how many more there are."""
    rest = len(texts) - limit
    return separator.join(texts) if rest <= 0 else f"{separator.join(texts[:limit])} and {rest} more"


def pluralize(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
