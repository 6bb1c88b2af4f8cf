"""What tests read of a plan's folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.duel.order import order_in_block
from jobs.report import read

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.report import Report

Place = tuple[int, int, str]
"""Block, position and framework of a run."""


def plan_in(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return plan


def reports_in(folder: Path) -> list[Report]:
    return [read(path) for path in (folder / "reports").rglob("*.json")]


def places(folder: Path) -> list[Place]:
    """Of all reports."""
    designs = [(report.config.design, report.config.framework) for report in reports_in(folder)]
    return sorted((design.block, design.position, framework) for design, framework in designs if design)


def drawn(folder: Path, *blocks: int) -> list[Place]:
    """The places of whole blocks, as the plan's id draws them."""
    plan_id = plan_in(folder)["plan_id"]
    return [(block, at, name) for block in blocks for at, name in enumerate(order_in_block(plan_id, block))]


def outcomes(folder: Path) -> list[str]:
    return [run["outcome"] for run in plan_in(folder)["runs"]]
