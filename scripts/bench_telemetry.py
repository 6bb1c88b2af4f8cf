"""What does telemetry cost? Epochs with and without it, in pairs, in one process a framework: ``make bench-telemetry``.

It trains on the CPU against the small library that the tests build in NVML's place, so every reading of a Hopper GPU
is taken, at the default rates. Each pair is two epochs, one after the other, in random order; its ratio is one
observation, and the interval is a bootstrap of their median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from measurement import ENVIRONMENTS, ROOT, add_output_option, circumstances, write_results
from scipy import stats

SOURCE = ROOT / "tests/support/nvml/fake_nvml.c"
WORKER = ROOT / "scripts/bench_telemetry_worker.py"

LIMITS = {"time_ratio": 1.01, "cpu_ratio": 0.02, "missed_ratio": 0.01, "lateness_p95_ms": 10.0}
"""The largest value that is still good enough."""
RESAMPLES = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=12, help="pairs of epochs a framework (default: 12)")
    parser.add_argument("--recipe", default="lenet", help="lenet or basic-cnn (default: lenet)")
    parser.add_argument("--dataset", default="synthetic", help="as train's (default: synthetic, of MNIST's size)")
    add_output_option(parser, "telemetry")
    arguments = parser.parse_args()
    measured = circumstances()
    with tempfile.TemporaryDirectory() as folder:
        build = ["cc", "-O1", "-shared", "-fPIC", "-o", f"{folder}/libnvidia-ml.so.1", SOURCE, "-lm"]
        subprocess.run(build, check=True)
        results = {name: summarise(run_worker(name, folder, arguments)) for name in ENVIRONMENTS}
    for name, result in results.items():
        over = ", ".join(result["over"]) or "none"
        print(f"{name}: {result['time_ratio']:.4f} times as long; over its limits: {over}")
    content = {"recipe": arguments.recipe, "dataset": arguments.dataset, "limits": LIMITS, "results": results}
    write_results(arguments.output, content, measured=measured)
    return 0 if all(result["kept"] for result in results.values()) else 1


def run_worker(name: str, library: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The pairs that the worker measured in ``name``'s own environment."""
    environment, package = ENVIRONMENTS[name]
    module = f"jobs.{package}.cli"
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
    result: dict[str, Any] = {
        "pairs": len(pairs),
        "epoch_s": statistics.median(pair["off_s"] for pair in pairs),
        "time_ratio": statistics.median(ratios),
        "time_ratio_interval": [float(interval.low), float(interval.high)],
        "cpu_ratio": sum(pair["on"]["cpu_s"] for pair in pairs) / sum(pair["on"]["watched_s"] for pair in pairs),
        "missed_ratio": sum(rate["missed"] for rate in rates) / sum(rate["planned"] for rate in rates),
        "lateness_p95_ms": statistics.median(pair["on"]["rates"]["fast"]["lateness_p95_ms"] for pair in pairs),
    }
    over = [name for name, limit in LIMITS.items() if result[name] > limit]
    return result | {"kept": not over, "over": over}


if __name__ == "__main__":
    sys.exit(main())
