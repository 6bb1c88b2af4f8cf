"""Measures the training speed on CPUs that other processes use as well: ``make bench-shared-cpu``.

While 0, 1 and 2 other processes each use one CPU, lenet trains an epoch on the synthetic dataset with several thread
settings, in random order. The speed is that of steady training, from the job's report.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measurement import add_output_option, circumstances, run_job, write_results

IMAGES = 60_000
SETTINGS: dict[str, dict[str, dict[str, str]]] = {
    "torch": {
        "default": {},
        "active": {"OMP_WAIT_POLICY": "active"},
        "passive": {"OMP_WAIT_POLICY": "passive"},
        "1 thread": {"OMP_NUM_THREADS": "1"},
    },
    "tensorflow": {"default": {}, "1 thread": {"TF_NUM_INTRAOP_THREADS": "1"}},
}
BUSY = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each setting (default: 3)")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="other busy processes (default: 0 1 2)")
    add_output_option(parser, "shared_cpu")
    arguments = parser.parse_args()
    measured = circumstances()
    results = [row for busy in arguments.busy for row in measure(busy, arguments.rounds)]
    content = {"recipe": "lenet", "dataset": "synthetic", "images": IMAGES, "results": results}
    write_results(arguments.output, content, measured=measured)
    return 0


def measure(busy: int, rounds: int) -> list[dict[str, Any]]:
    """Images per second of each framework and setting while ``busy`` other processes run."""
    speeds: dict[tuple[str, str], list[float]] = {
        (framework, setting): [] for framework, settings in SETTINGS.items() for setting in settings
    }
    order = random.Random(1)  # noqa: S311 - an order, not a secret
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        for _ in range(rounds):
            for framework, setting in order.sample(list(speeds), len(speeds)):
                speeds[framework, setting].append(train(framework, SETTINGS[framework][setting]))
    finally:
        for other in others:
            other.kill()
            other.wait()
    rows = []
    for (framework, setting), values in speeds.items():
        row = {"framework": framework, "setting": setting, "busy": busy, "images_per_s": statistics.median(values)}
        print(f"{busy} busy, {framework}, {setting}: {row['images_per_s']:,.0f} images/s", file=sys.stderr, flush=True)
        rows.append({**row, "all_images_per_s": values})
    return rows


def train(framework: str, variables: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--dataset", "synthetic", "--epochs", "1"]
        report = run_job(framework, *options, report_dir=Path(folder), variables=variables)
    return float(report["results"]["steady_images_per_s"])


if __name__ == "__main__":
    sys.exit(main())
