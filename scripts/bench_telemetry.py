"""What does telemetry cost? Epochs with and without it, in pairs, in one process a framework: ``make bench-telemetry``.

It trains on the CPU against the small library that the tests build in NVML's place, so every reading of a Hopper GPU
is taken, at the default rates. Each pair is two epochs, one after the other, in random order; its ratio is one
observation, and the interval is a bootstrap of their median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests/support/nvml/fake_nvml.c"
WORKER = ROOT / "scripts/bench_telemetry_worker.py"
FRAMEWORKS = {"tensorflow": (".venv-tf", "jobs.mnist_tf.cli"), "torch": (".venv-torch", "jobs.mnist_torch.cli")}

MOST_TIME_RATIO = 1.01
MOST_CPU_RATIO = 0.02
MOST_MISSED_RATIO = 0.01
MOST_LATENESS_MS = 10.0
RESAMPLES = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=12, help="pairs of epochs a framework (default: 12)")
    parser.add_argument("--recipe", default="lenet", help="lenet or basic-cnn (default: lenet)")
    parser.add_argument("--dataset", default="synthetic", help="as train's (default: synthetic, of MNIST's size)")
    parser.add_argument("--output", type=Path, default=ROOT / "reports/bench-telemetry.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build = ["cc", "-O1", "-shared", "-fPIC", "-o", f"{folder}/libnvidia-ml.so.1", SOURCE, "-lm"]
        subprocess.run(build, check=True)
        found = {name: run_worker(name, folder, arguments) for name in FRAMEWORKS}
    results = {name: summarise(pairs) for name, pairs in found.items()}
    show(results, arguments.recipe)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpu_count": os.cpu_count(), "platform": platform.platform()}
    content = {"recipe": arguments.recipe, "machine": machine, "results": results, "pairs": found}
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nraw figures: {arguments.output}")
    return 0 if all(result["kept"] for result in results.values()) else 1


def run_worker(name: str, library: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The pairs that the worker measured in ``name``'s own environment."""
    environment, module = FRAMEWORKS[name]
    print(f"{name}: {arguments.pairs} pairs of epochs …", file=sys.stderr, flush=True)
    done = subprocess.run(
        [ROOT / environment / "bin/python", WORKER, module, arguments.recipe, arguments.dataset, str(arguments.pairs)],
        env=os.environ | {"LD_LIBRARY_PATH": library, "MNIST_JOBS_WATCH_GPU": "GPU-fake-0", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    pairs: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return pairs


def summarise(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median ratio with its interval, and the sampler's share of a core, misses and lateness."""
    ratios = [pair["ratio"] for pair in pairs]
    interval = stats.bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    rates = [rate for pair in pairs for rate in pair["on"]["rates"].values()]
    planned = sum(rate["planned"] for rate in rates)
    fast = [pair["on"]["rates"]["fast"]["lateness_p95_ms"] for pair in pairs]
    result = {
        "pairs": len(pairs),
        "epoch_s": statistics.median(pair["off_s"] for pair in pairs),
        "time_ratio": statistics.median(ratios),
        "time_ratio_interval": [float(interval.low), float(interval.high)],
        "cpu_ratio": sum(pair["on"]["cpu_s"] for pair in pairs) / sum(pair["on"]["watched_s"] for pair in pairs),
        "missed_ratio": sum(rate["missed"] for rate in rates) / planned,
        "lateness_p95_ms": statistics.median(fast),
    }
    kept = {
        "time_ratio": result["time_ratio"] <= MOST_TIME_RATIO,
        "cpu_ratio": result["cpu_ratio"] <= MOST_CPU_RATIO,
        "missed_ratio": result["missed_ratio"] < MOST_MISSED_RATIO,
        "lateness_p95_ms": result["lateness_p95_ms"] < MOST_LATENESS_MS,
    }
    return result | {"kept": all(kept.values()), "over": [name for name, good in kept.items() if not good]}


def show(results: dict[str, dict[str, Any]], recipe: str) -> None:
    """A Markdown table, as the documentation shows it."""
    print(f"\n| {recipe} | epoch | train time with / without | of a core | missed | p95 lateness | |")
    print("|---|---|---|---|---|---|---|")
    for name, result in results.items():
        low, high = result["time_ratio_interval"]
        over = f"over: {', '.join(result['over'])}" if result["over"] else "kept"
        print(
            f"| {name} | {result['epoch_s']:.1f} s | {result['time_ratio']:.4f} ({low:.4f}…{high:.4f}), "
            f"{result['pairs']} pairs | {100 * result['cpu_ratio']:.2f} % | {100 * result['missed_ratio']:.2f} % | "
            f"{result['lateness_p95_ms']:.2f} ms | {over} |"
        )


if __name__ == "__main__":
    sys.exit(main())
