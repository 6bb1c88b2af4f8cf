"""Makes the comparison that README shows, and the accuracies of docs/recipes.md: ``make measure-comparison``.

Both recipes in both frameworks, one run after the other on this machine's CPU. For each seed the order of the
frameworks is random, so that neither always runs on the warmer machine. The first seed's runs also record a parity
trace. Reports and comparison are kept in ``--work``; runs whose report exists are not repeated.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from measurement import ENVIRONMENTS, ROOT, add_output_option, circumstances, read_report, run_job, write_results

SEEDS = {"lenet": 5, "basic-cnn": 1}
"""Runs of each recipe and framework; lenet has enough for a verdict."""
PARITY_STEPS = 200
METRICS = ("test_accuracy_ratio", "train_wall_s", "steady_images_per_s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist", help="as train's (default: mnist)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="default: %(default)s")
    add_output_option(parser, "comparison")
    arguments = parser.parse_args()
    measured = circumstances()
    random_order = random.Random(1)  # noqa: S311 - an order, not a secret
    for recipe, seeds in SEEDS.items():
        for seed in range(1, seeds + 1):
            for framework in random_order.sample(list(ENVIRONMENTS), len(ENVIRONMENTS)):
                train(framework, recipe, seed, arguments)
    output = arguments.work / "comparison"
    merge = [sys.executable, ROOT / "scripts/merge_reports.py", arguments.work / "matched", "-o", output]
    subprocess.run(merge, check=True, stdout=subprocess.DEVNULL)
    comparison = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    content = {
        "sections": [summarise(section) for section in comparison["sections"]],
        "accuracies": accuracies(arguments.work),
    }
    write_results(arguments.output, content, measured=measured)
    return 0


def train(framework: str, recipe: str, seed: int, arguments: argparse.Namespace) -> None:
    folder = arguments.work / "matched" / f"{recipe}-{framework}-{seed}"
    if folder.exists() and list(folder.glob("*.json")):
        return
    print(f"{recipe}, {framework}, seed {seed} …", file=sys.stderr, flush=True)
    options = ["--recipe", recipe, "--seed", str(seed), "--dataset", arguments.dataset]
    parity = ["--parity-steps", str(PARITY_STEPS)] if seed == 1 else []
    run_job(framework, *options, *parity, report_dir=folder)


def accuracies(work: Path) -> list[dict[str, Any]]:
    """Each run's test accuracy by epoch."""
    rows = []
    for folder in sorted((work / "matched").iterdir()):
        report = read_report(folder)
        row = {name: report["config"][name] for name in ("recipe", "framework", "seed")}
        rows.append({**row, "by_epoch": [epoch["test_accuracy_ratio"] for epoch in report["results"]["epochs"]]})
    return rows


def summarise(section: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": section["recipe"],
        "verdict": section["verdict"]["text"],
        "parity": section["parity"]["text"],
        "sides": {side["framework"]: _side(side) for side in section["sides"]},
        "ratios": {ratio["metric"]: ratio for ratio in section["ratios"] if ratio["metric"] in METRICS},
    }


def _side(side: dict[str, Any]) -> dict[str, Any]:
    fields = ("n", "median", "q1", "q3")
    metrics = {row["name"]: {name: row[name] for name in fields} for row in side["metrics"] if row["name"] in METRICS}
    return {"version": ", ".join(side["framework_versions"]), "metrics": metrics}


if __name__ == "__main__":
    sys.exit(main())
