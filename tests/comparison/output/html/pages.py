"""Makes pages for tests through the program's own door, and reads them back."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.build import build
from jobs.comparison.input.load import load
from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.html.timelines import timelines
from tests.support.reports import make_report, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobs.choices import FrameworkName
    from jobs.comparison.input.load import Loaded
    from jobs.report import Report

HOSTILE = (
    "x\"'><script>alert(1)</script><img src=x onerror=alert(1)>\n{{ 7 * 7 }} $x^2$ \x1b[2J \u202egnp.exe \u2066"
    " </style> javascript:alert(1) &amp; <!-- ]]> https://evil.example"
)
VOID: Final = frozenset({"meta", "link", "br", "hr", "img", "input"})
SERIES: Final[dict[str, Any]] = {
    "columns": ["util_percent", "sm_util_percent", "power_w", "cpu_percent"],
    "units": ["%", "%", "W", "%"],
    "t_s": [index / 4 for index in range(60)],
    "values": [
        [0.0 if index < 4 else 60.0 + index % 7 for index in range(60)],
        [0.0 if index < 4 else 20.0 + index % 5 for index in range(60)],
        [110.0 if index < 4 else None if index == 9 else 300.0 + index % 11 for index in range(60)],
        [100.0] * 60,
    ],
}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        return [child for child in self.walk() if child.tag == tag]

    def walk(self) -> list[Element]:
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child, *child.walk()]
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def one(self, tag: str) -> Element:
        (found,) = self.all(tag)
        return found


class _Reader(HTMLParser):
    """Builds a tree, and fails where an element is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root], f"left open: {[element.tag for element in self._open[1:]]}"


def read_page(html: str) -> Element:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.root


def page_of(folder: Path, *reports: Report, reverse: bool = False, baseline: Sequence[Report] = ()) -> str:
    """The page of report files in ``folder``; ``reverse`` gives them in the other order."""
    loaded = _loaded(folder, reports, reverse=reverse)
    before = _loaded(folder / "baseline", baseline) if baseline else None
    return render_html(build(loaded, baseline=before), timelines(loaded.runs))


def _loaded(folder: Path, reports: Sequence[Report], *, reverse: bool = False) -> Loaded:
    paths = [str(write_report(report, folder / f"{number:05}.json")) for number, report in enumerate(reports)]
    return load(paths[::-1] if reverse else paths, io.BytesIO())


def matrix(*, gpu: bool = False, runs: int = 5, series: bool = False) -> list[Any]:
    """``runs`` runs of ``lenet`` in both frameworks."""
    changes = {"timeseries": SERIES} if series else {}
    speeds: dict[FrameworkName, float] = {"tensorflow": 10_000.0, "torch": 12_000.0}
    return [
        make_report(
            framework=framework,
            seed=seed,
            images_per_s=speed + 37 * (seed * 7 % 11),
            accuracy=0.95 + 0.001 * (seed % 9),
            gpu=gpu,
            timeseries=series,
            changes=changes,
        )
        for framework, speed in speeds.items()
        for seed in range(1, runs + 1)
    ]
