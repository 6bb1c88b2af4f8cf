"""Draws with matplotlib, and makes of its SVG a figure that belongs to a page.

Text stays text, in the page's own font: it can be searched and copied, keeps sharp in print, and takes the page's
colour. matplotlib lays it out by its own wide font, so a reader's system font never needs more room. Colours
become classes that the style sheet sets for light and dark; nothing is left of ``style`` attributes, which
the page's content security policy would refuse.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from jobs.comparison.output.html.theme import INK, QUIET, ROLE, RULE
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Callable

SVG: Final = "http://www.w3.org/2000/svg"
_XLINK_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_DROPPED: Final = frozenset({"font-family", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin"})
_COORDINATES: Final = ("d", "x", "y", "width", "height", "points", "transform", "stroke-dasharray", "stroke-width")

_SETTINGS: Final[dict[Any, Any]] = {
    "axes.edgecolor": QUIET,
    "axes.grid": False,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "grid.color": RULE,
    "path.simplify": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "mnist-jobs",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": QUIET,
    "xtick.major.size": 4,
    "ytick.color": QUIET,
    "ytick.major.size": 0,
}

ET.register_namespace("", SVG)


def draw(
    paint: Callable[[Figure], None], *, name: str, title: str, description: str, width: float, height: float, kind: str
) -> Markup:
    """The figure that ``paint`` draws on ``width`` x ``height`` CSS pixels, as an inline ``svg`` element.

    ``name`` prefixes every id in it, and must be unique in the page; ``kind`` is an extra class.
    """
    # matplotlib's styles of a user's own must not change the page, hence the defaults first.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        raw = io.BytesIO()
        figure.savefig(raw, format="svg", metadata={"Date": None})
    root = ET.fromstring(raw.getvalue())  # noqa: S314
    _remove(root, {"metadata", "style"})
    for element in root.iter():
        _restyle(element)
    _rename(root, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("class", f"plot {kind}")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = escape_control_chars(text)
        root.insert(place, element)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree


def _remove(element: ET.Element, tags: set[str]) -> None:
    for child in list(element):
        if child.tag.removeprefix(f"{{{SVG}}}") in tags:
            element.remove(child)
        else:
            _remove(child, tags)
            if child.tag in {f"{{{SVG}}}defs", f"{{{SVG}}}g"} and not len(child):
                element.remove(child)


def _restyle(element: ET.Element) -> None:
    """Style properties as attributes, colours as classes."""
    classes: list[str] = []
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if not name or name in _DROPPED:
            continue
        if name in {"fill", "stroke"} and value in ROLE:
            classes.append(f"{name}-{ROLE[value]}")
        element.set(name, value)
    if element.tag == f"{{{SVG}}}text" and not any(name.startswith("fill-") for name in classes):
        classes.append("fill-ink")
    if classes:
        element.set("class", " ".join(classes))
    if re.fullmatch(r"rotate\(-?0 .*", element.get("transform", "")):
        del element.attrib["transform"]
    for name in _COORDINATES:
        if name in element.attrib:
            element.set(name, re.sub(r"-?\d+\.\d+", _shorter, " ".join(element.attrib[name].split())))
    element.tail = None
    if element.tag != f"{{{SVG}}}text":
        element.text = None


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _rename(root: ET.Element, name: str) -> None:
    """Prefix the ids that something refers to, and drop the others: figures share one document."""
    used: set[str] = set()
    for element in root.iter():
        target = element.attrib.pop(_XLINK_HREF, None)
        if target is not None:
            used.add(target.removeprefix("#"))
            element.set("href", f"#{name}-{target.removeprefix('#')}")
        clip = re.fullmatch(r"url\(#(.+)\)", element.get("clip-path", ""))
        if clip:
            used.add(clip[1])
            element.set("clip-path", f"url(#{name}-{clip[1]})")
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
