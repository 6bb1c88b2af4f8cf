"""Measures what ranks and their reductions cost for docs/distributed.md: ``make measure-reductions``.

Each way to train takes its turn, in a new order in every turn. A way's cost is its speed within a turn, divided by the
speed of whole batches on one rank in the same turn.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, Final

from measurement import ENVIRONMENTS, add_output_option, circumstances, run_job, write_part, write_results

from jobs.recipes import RECIPES

WHOLE: Final = "whole batches"
WAYS: Final = {
    WHOLE: (),
    "exact, 1 rank": ("--reduction", "exact"),
    "exact, 2 ranks": ("--ranks", "2", "--reduction", "exact"),
    "fast, 1 rank": ("--reduction", "fast"),
    "fast, 2 ranks": ("--ranks", "2", "--reduction", "fast"),
}
IMAGES: Final = {"lenet": 12_000, "basic-cnn": 1_600}
"""An epoch of some seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="turns a framework and recipe (default: 3)")
    add_output_option(parser, "reductions")
    arguments = parser.parse_args()
    measured = circumstances()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [cost_of(*row, arguments.turns, folder) for row in product(ENVIRONMENTS, IMAGES)]
    write_results(arguments.output, {"turns": arguments.turns, "costs": rows}, measured=measured)
    return 0


def cost_of(framework: str, recipe: str, turns: int, folder: Path) -> dict[str, Any]:
    """The speeds of all ways in images per second, and each way's ratio to whole batches."""
    print(f"{recipe}, {framework}: {turns} turns …", file=sys.stderr, flush=True)
    data = folder / recipe
    if not data.exists():
        write_part(data, IMAGES[recipe], RECIPES[recipe].batch_size)
    random_order = random.Random(1)  # noqa: S311 - an order, not a secret
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(turns):
        for way in random_order.sample(list(WAYS), len(WAYS)):
            reports = folder / f"{framework}-{recipe}-{turn}-{way}"
            options = ("--recipe", recipe, "--dataset", str(data), "--epochs", "3", "--telemetry", "off", *WAYS[way])
            report = run_job(framework, *options, report_dir=reports)
            speeds[way].append(report["results"]["steady_images_per_s"])
    return {
        "framework": framework,
        "recipe": recipe,
        "images_per_s": {way: statistics.median(found) for way, found in speeds.items()},
        "ratios": {way: summarise(speeds[way], speeds[WHOLE]) for way in WAYS if way != WHOLE},
    }


def summarise(speeds: list[float], whole: list[float]) -> dict[str, Any]:
    ratios = [speed / of_whole for speed, of_whole in zip(speeds, whole, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


if __name__ == "__main__":
    sys.exit(main())
