"""Fills the template: the whole page as one string, whose bytes the same comparison always gives."""

from __future__ import annotations

import base64
import hashlib
import re
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from jobs.comparison.analysis.parity_verdict import unpaired_line
from jobs.comparison.analysis.statistics import (
    ALPHA,
    FAMILYWISE_ALPHA,
    RUNS_FOR_A_VERDICT,
    SMALLEST_EFFECT,
    UNSTABLE_SPREAD,
)
from jobs.comparison.analysis.verdict import MAX_FAILURE_RATE_GAP
from jobs.comparison.input.metrics import METRICS
from jobs.comparison.output import tables
from jobs.comparison.output.html.figures.accuracy import accuracy_plate
from jobs.comparison.output.html.figures.phases import phases_plate
from jobs.comparison.output.html.figures.ratios import ratios_plate
from jobs.comparison.output.html.figures.runs import runs_plate
from jobs.comparison.output.html.figures.timeline import timeline_plate
from jobs.comparison.output.html.theme import LOOK
from jobs.comparison.process_pool import start_workers
from jobs.comparison.text import ABSENT, counted
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.comparison.input.metrics import Missing
    from jobs.comparison.output.html.figures.figure import FigureBlock
    from jobs.comparison.output.html.timelines import SectionKey, Timeline
    from jobs.comparison.schema import Comparison, FrameworkResults, Gate, GateMetric, Section

MAX_ROWS: Final = 200
"""Rows of one table; comparison.json has every run, whatever their number."""

_TEMPLATE: Final = "comparison.html.j2"
_METRIC: Final = {metric.name: metric for metric in METRICS}
_STYLE: Final = "comparison.css"


def render_html(comparison: Comparison, lines: Mapping[SectionKey, Sequence[Timeline | Missing]]) -> str:
    """``comparison`` as a page of its own; ``lines`` are each section's timelines (:func:`.timelines.timelines`).

    Text out of reports is escaped, and what a browser would not show as it is (control and format characters,
    which could turn the line around) is written out.
    """
    style = _environment().get_template(_STYLE).render()
    return _template().render(
        comparison=comparison,
        plates=_all_plates(comparison.sections, lines),
        style=Markup(style),  # noqa: S704 - a file of this package
        policy=f"default-src 'none'; style-src 'sha256-{_digest(style)}'; base-uri 'none'; form-action 'none'",
        effect_percent=100 * (SMALLEST_EFFECT - 1),
        runs_for_a_verdict=RUNS_FOR_A_VERDICT,
        false_claims=ALPHA,
        false_claims_in_table=FAMILYWISE_ALPHA,
        unstable_spread=UNSTABLE_SPREAD,
        most_lost=MAX_FAILURE_RATE_GAP,
        most_rows=MAX_ROWS,
    )


def _all_plates(
    sections: Sequence[Section], lines: Mapping[SectionKey, Sequence[Timeline | Missing]]
) -> list[list[FigureBlock]]:
    """Each section's plates. Half of the page's time goes into drawing them, so sections are drawn side by side."""
    pool = start_workers(len(sections), given=_take, to=(sections, lines))
    if pool is not None:
        with pool, suppress(BrokenProcessPool):
            return list(pool.map(_taken_plates, range(len(sections))))
    return [_plates(section, lines, f"s{number}") for number, section in enumerate(sections, start=1)]


_taken: list[Any] = []
"""In a worker: the sections and the lines it was given."""


def _take(*given: Any) -> None:
    _taken[:] = given


def _taken_plates(index: int) -> list[FigureBlock]:
    sections, lines = _taken
    return _plates(sections[index], lines, f"s{index + 1}")


def _plates(section: Section, lines: Mapping[SectionKey, Sequence[Timeline | Missing]], name: str) -> list[FigureBlock]:
    return [
        ratios_plate(section, f"{name}-ratios"),
        runs_plate(section, f"{name}-runs"),
        phases_plate(section, f"{name}-phases"),
        timeline_plate(lines.get((section.recipe, section.protocol), []), f"{name}-time"),
        accuracy_plate(section, f"{name}-accuracy"),
    ]


def _digest(style: str) -> str:
    """The style sheet's hash as a content security policy names it: nothing else may style the page."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs.comparison"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["tables"] = tables
    environment.filters |= {
        "counted": counted,
        "gate_rows": gate_rows,
        "headline": headline,
        "named": named,
        "parity_row": tables.parity_row,
        "sentence": sentence,
        "run_cells": tables.run_cells,
        "side_named": side_named,
        "unbroken": unbroken,
        "unpaired_line": unpaired_line,
    }
    return environment


@cache
def _template() -> Template:
    return _environment().get_template(_TEMPLATE)


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else escape_control_chars(str(value))


def named(text: str) -> str:
    """The frameworks by the names people know them by, in a sentence of this program's own making."""
    for framework, look in LOOK.items():
        text = re.sub(rf"\b{framework}\b", look.label, text)
    return text


def side_named(side: FrameworkResults) -> str:
    return f"{LOOK[side.framework].label} {', '.join(side.framework_versions)}"


def gate_rows(gate: Gate) -> list[list[str]]:
    """A row a metric of each side: before, now, the change and what would be tolerated."""
    return [
        [
            f"{side.recipe}, {side.protocol}, {LOOK[side.framework].label}: {_METRIC[metric.name].heading}",
            *_gate_cells(metric),
            metric.outcome.replace("_", " "),
        ]
        for side in gate.sides
        for metric in side.metrics
    ]


def _gate_cells(metric: GateMetric) -> list[str]:
    shown = _METRIC[metric.name].shown
    medians = [
        ABSENT if value is None else f"{shown(value)}, n={count}"
        for value, count in ((metric.median_before, metric.n_before), (metric.median_now, metric.n_now))
    ]
    unit = "points" if metric.unit == "ratio" else "%"
    change = ABSENT if metric.change is None else f"{100 * metric.change:+.2f} {unit}"
    tolerated = ABSENT if metric.tolerated is None else f"{100 * metric.tolerated:.2f} {unit}"
    return [*medians, change, tolerated]


def headline(text: str) -> tuple[str, str]:
    """A verdict's sentence as what is said first and the rest: ``torch is faster`` and its figures."""
    first, _, rest = re.sub(r"[:;,] ", "\0", text, count=1).partition("\0")
    return sentence(first), sentence(rest)


def unbroken(text: str) -> Markup:
    """``text`` in which a line never ends inside a number like 1.6e-14."""
    safe = str(escape(escape_control_chars(text)))
    return Markup(re.sub(r"[\d.]+e-\d+", r'<span class="unbroken">\g<0></span>', safe))  # noqa: S704 - escaped above


def sentence(text: str) -> str:
    """``text`` with a capital letter."""
    return text[:1].upper() + text[1:]
