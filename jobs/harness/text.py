"""Text from outside, such as the name of a folder or of a node, as a report and a terminal can take it."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with an escape for whatever cannot be printed: control characters, and bytes that are no UTF-8."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
