"""Fills the page's template. The same comparison always gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

from jobs.comparison.output.html.accuracy_figure import accuracy_figure
from jobs.comparison.output.html.drawn_runs import drawn_runs
from jobs.comparison.output.html.figure import DISPLAY_NAMES
from jobs.comparison.output.html.phases_figure import phases_figure
from jobs.comparison.output.html.ratio_figure import ratio_figure
from jobs.comparison.output.html.runs_figure import runs_figure
from jobs.comparison.output.html.timelines import timeline_figure
from jobs.comparison.output.templates import template_environment
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Environment

    from jobs.comparison.input.metrics import Missing
    from jobs.comparison.output.html.figure import FigureBlock
    from jobs.comparison.output.html.timelines import SectionKey, Timeline
    from jobs.comparison.schema import Comparison, Section

MAX_ROWS: Final = 200
"""Rows of one table or list; comparison.json has every run."""


def render_html(comparison: Comparison, timelines: Mapping[SectionKey, Sequence[Timeline | Missing]]) -> str:
    """``comparison`` as a page, with each section's ``timelines`` (:func:`.timelines.timelines`).

    Text from reports is escaped. Control and format characters, which could reverse a line, are written out.
    """
    style = _environment().get_template("comparison.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment().get_template("comparison.html.j2")
    return template.render(
        comparison=comparison,
        figures=[
            _figures(section, timelines.get((section.recipe, section.protocol, section.rank_setting), ()))
            for section in comparison.sections
        ],
        names=DISPLAY_NAMES,
        style=Markup(style),  # noqa: S704 - a file of this package
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        max_rows=MAX_ROWS,
    )


def _figures(section: Section, section_timelines: Sequence[Timeline | Missing]) -> list[FigureBlock]:
    runs = drawn_runs(section)
    return [
        ratio_figure(section),
        runs_figure(section),
        phases_figure(runs),
        timeline_figure(section_timelines),
        accuracy_figure(section, runs, max_rows=MAX_ROWS),
    ]


@cache
def _environment() -> Environment:
    return template_environment(
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else escape_control_chars(str(value)),
        paragraph_break=Markup("</p>\n<p>"),
        filters={
            "display_names": display_names,
            "emphasis": lambda text: Markup("<em>{}</em>").format(text),
            "headline": headline,
            "sentence": sentence,
            "unbroken": unbroken,
        },
    )


def display_names(text: str) -> str:
    """``text`` with the frameworks' usual names."""
    for framework, name in DISPLAY_NAMES.items():
        text = re.sub(rf"\b{framework}\b", name, text)
    return text


def headline(text: str) -> tuple[str, str]:
    """The first clause of a verdict, as in ``torch is faster``, and the rest with its figures."""
    first, _, rest = re.sub(r"[:;,] ", "\0", text, count=1).partition("\0")
    return sentence(first), sentence(rest)


def unbroken(text: str) -> Markup:
    """``text`` in which no line ends inside a number like 1.6e-14."""
    safe = str(escape(escape_control_chars(text)))
    return Markup(re.sub(r"[\d.]+e-\d+", r'<span class="unbroken">\g<0></span>', safe))  # noqa: S704 - escaped above


def sentence(text: str) -> str:
    """``text`` with a capital letter."""
    return text[:1].upper() + text[1:]
