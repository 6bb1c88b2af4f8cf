"""The parts of every figure of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

    from jobs.choices import FrameworkName
    from jobs.comparison.output.tables import Table

DISPLAY_NAMES: Final[Mapping[FrameworkName, str]] = {"tensorflow": "TensorFlow", "torch": "PyTorch"}
"""The frameworks' names on the page."""


@dataclass(frozen=True, kw_only=True)
class FigureBlock:
    """A figure with its texts and its table. If there is nothing to draw, ``note`` says why and the rest is empty.

    ``drawing`` is the content of the ``svg`` element, ``height`` pixels high; ``gutter`` reserves space for labels at
    its left. ``description`` is for screen readers. ``legend`` has (CSS class, label), shown as marks or lines.
    """

    title: str
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    legend_of_lines: bool = False
    drawing: tuple[Markup, ...] = ()
    description: str = ""
    height: float = 0
    gutter: bool = False
    note: str | None = None
    table: Table | None = None


def framework_legend(frameworks: list[FrameworkName]) -> tuple[tuple[str, str], ...]:
    return tuple((framework, DISPLAY_NAMES[framework]) for framework in frameworks)


def subsample(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` indices, evenly spaced, with the first and the last."""
    if count <= limit:
        return list(range(count))
    return sorted({round(index * (count - 1) / (limit - 1)) for index in range(limit)})
