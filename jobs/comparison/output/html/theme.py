"""The figures' colours, by what they mean, and how the two frameworks are told apart without any colour.

The style sheet defines each role once for light and once for dark; the values here are the light ones, which also
stand in the SVG for wherever it is shown without the style sheet. The frameworks' blue and vermilion are Okabe and
Ito's, made for colour-blind readers; marks and line styles say the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.report.schema import FrameworkName, PhaseName

INK: Final = "#1b1f24"
QUIET: Final = "#5b6470"
RULE: Final = "#dfe3e8"
BAND: Final = "#e9edf2"
PAPER: Final = "#ffffff"

PHASE: Final[Mapping[PhaseName, str]] = {
    "startup": "#c3cad4",
    "dataset": "#8e99a8",
    "build": "#667284",
    "first_step": "#e3b23c",
    "train": "#2f7f6f",
    "evaluate": "#a594c9",
    "checkpoint": "#4f8fc0",
    "export": "#7d4f73",
}
"""In the order in which a run passes through them."""


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    """How one framework's marks look; ``dashes`` as matplotlib takes them."""

    label: str
    color: str
    marker: str
    dashes: Any


LOOK: Final[Mapping[FrameworkName, SeriesStyle]] = {
    "tensorflow": SeriesStyle(label="TensorFlow", color="#d55e00", marker="o", dashes="-"),
    "torch": SeriesStyle(label="PyTorch", color="#0072b2", marker="D", dashes=(0, (4, 1.6))),
}

ROLE: Final[Mapping[str, str]] = {
    INK: "ink",
    QUIET: "quiet",
    RULE: "rule",
    BAND: "band",
    PAPER: "paper",
    **{look.color: framework for framework, look in LOOK.items()},
    **{color: f"phase-{name.replace('_', '-')}" for name, color in PHASE.items()},
}
"""The role of each colour, which names the style sheet's classes ``fill-…`` and ``stroke-…``."""

assert len(ROLE) == 5 + len(LOOK) + len(PHASE), "each role has a colour of its own"
