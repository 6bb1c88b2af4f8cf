"""What a job does on CPUs that others use too: ``make bench-shared-cpu``.

While 0, 1 and 2 other processes each keep one CPU busy, lenet trains on a part of the embedded digits with several
settings of its threads, in turns. Each training is a process of its own, since threads are set up once.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
from typing import Any

from measurement import ENVIRONMENTS, ROOT, add_output_option, circumstances, write_results

WORKER = ROOT / "scripts/bench_shared_cpu_worker.py"
IMAGES = 10_000
EPOCHS = 3
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
    parser.add_argument("--rounds", type=int, default=3, help="turns through all settings (default: 3)")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="other busy processes (default: 0 1 2)")
    add_output_option(parser, "shared_cpu")
    arguments = parser.parse_args()
    measured = circumstances()
    results = [row for busy in arguments.busy for row in with_others(busy, arguments.rounds)]
    content = {"recipe": "lenet", "dataset": "synthetic", "images": IMAGES, "results": results}
    write_results(arguments.output, content, measured=measured)
    return 0


def with_others(busy: int, rounds: int) -> list[dict[str, Any]]:
    """Images a second of each framework and setting while ``busy`` other processes run."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        return turns(busy, rounds)
    finally:
        for other in others:
            other.kill()
            other.wait()


def turns(busy: int, rounds: int) -> list[dict[str, Any]]:
    speeds: dict[tuple[str, str], list[float]] = {
        (framework, setting): [] for framework, settings in SETTINGS.items() for setting in settings
    }
    draw = random.Random(1)  # noqa: S311 - an order, not a secret
    for _ in range(rounds):
        for framework, setting in draw.sample(list(speeds), len(speeds)):
            speeds[framework, setting].append(train(framework, SETTINGS[framework][setting]))
    rows = []
    for (framework, setting), found in speeds.items():
        row = {"framework": framework, "setting": setting, "busy": busy, "images_per_s": statistics.median(found)}
        print(f"{busy} busy, {framework}, {setting}: {row['images_per_s']:,.0f} images/s", file=sys.stderr, flush=True)
        rows.append({**row, "all_images_per_s": found})
    return rows


def train(framework: str, variables: dict[str, str]) -> float:
    environment, package = ENVIRONMENTS[framework]
    command = [ROOT / environment / "bin/python", WORKER, f"jobs.{package}", str(IMAGES), str(EPOCHS)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, env={**os.environ, **variables})
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
