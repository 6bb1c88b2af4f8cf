"""Makes foreign text harmless on a terminal and in Markdown, and gives numbers one look."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT: Final = "—"
"""What stands where there is no measurement."""

CELL_LIMIT: Final = 32_000
"""Characters of one CSV cell; a spreadsheet takes 32,767 and cuts or splits what is longer."""

# An underscore or a hash inside a word starts nothing, and names stay readable without the backslash.
_MARKDOWN: Final = re.compile(
    r"(?P<word>(?:#[0-9]+|[0-9A-Za-z-]+)+)|[\\`*\[\]|~$]|(?<![A-Za-z0-9])[_#]|_(?![A-Za-z0-9])"
)
# An issue's number, or what may be a commit's.
_REFERENCE: Final = re.compile(r"#|(?<![0-9A-Za-z])(?:gh-[0-9]|[0-9a-f]{7,40}(?![0-9A-Za-z]))", re.IGNORECASE)
# Wide forms too, which some spreadsheets take for the plain ones. A cell may begin at any mark that separates cells
# somewhere, since which one does depends on the reader's language.
_FORMULA: Final = re.compile(r'(^|[,;|])(?=[ "]*[=+\-@＝＋－＠])')  # noqa: RUF001
_BREAKS: Final = ("\t", "\r", "\n")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def shortened(text: str, limit: int) -> str:
    """``text``, cut to ``limit`` characters where it is longer, which is then said at its end."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def markdown(text: str) -> str:
    """``text`` as it is, read as Markdown: no markup, HTML, table cell, mention, reference or bare link comes of it."""
    escaped = _MARKDOWN.sub(_escape, escape_control_chars(text))
    escaped = re.sub("[&<>]", lambda match: _ENTITIES[match[0]], escaped)
    # GitHub links bare addresses, which an entity breaks, and mentions, which only a zero-width joiner breaks.
    return escaped.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "@&#8205;")


def _escape(match: re.Match[str]) -> str:
    if match["word"] is None:
        return f"\\{match[0]}"
    # GitHub makes links of references wherever they stand but in code, and a backslash does not keep it from that.
    return f"`{match[0]}`" if _REFERENCE.search(match[0]) else match[0]


def csv_cell(text: str) -> str:
    """``text`` on one bounded line, of which a spreadsheet takes no part for a formula (OWASP, CSV injection)."""
    shown = shortened(_FORMULA.sub(r"\1'", escape_control_chars(text)), CELL_LIMIT)
    # The characters as they came count too: what is escaped now may have begun with a tab or a line break.
    return f"'{shown}" if text.startswith(_BREAKS) else shown


def number(value: float) -> str:
    """``value`` with at least four significant digits and no more than it needs to be read."""
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3e}"
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{decimals}f}"


def listed(texts: Sequence[str], limit: int, separator: str = ", ") -> str:
    """``texts`` joined; beyond ``limit`` the rest is counted."""
    rest = len(texts) - limit
    return separator.join(texts) if rest <= 0 else f"{separator.join(texts[:limit])} and {rest} more"


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
