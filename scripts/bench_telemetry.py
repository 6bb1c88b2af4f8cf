"""Measures the cost of telemetry: pairs of epochs with and without it, in one process: ``make bench-telemetry``.

It trains on the CPU with the tests' stand-in for NVML, so that every reading of a Hopper GPU is taken, at the default
rates. Each pair is two consecutive epochs in random order. The interval is a bootstrap of the median of their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from measurement import (
    ENVIRONMENTS,
    ROOT,
    add_output_option,
    circumstances,
    median_interval,
    run_worker,
    write_results,
)

SOURCE = ROOT / "tests/support/nvml/fake_nvml.c"

LIMITS = {"time_ratio": 1.01, "cpu_ratio": 0.02, "missed_ratio": 0.01, "lateness_p95_ms": 10.0}
"""The largest acceptable values."""


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
        results = {name: summarise(measure(name, folder, arguments)) for name in ENVIRONMENTS}
    for name, result in results.items():
        over = ", ".join(result["over"]) or "none"
        print(f"{name}: {result['time_ratio']:.4f} times as long; over its limits: {over}")
    content = {"recipe": arguments.recipe, "dataset": arguments.dataset, "limits": LIMITS, "results": results}
    write_results(arguments.output, content, measured=measured)
    return 0 if all(result["kept"] for result in results.values()) else 1


def measure(name: str, library: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The pairs that the worker measured in ``name``'s own environment."""
    module = f"jobs.{ENVIRONMENTS[name][1]}.cli"
    print(f"{name}: {arguments.pairs} pairs of epochs …", file=sys.stderr, flush=True)
    options = (module, arguments.recipe, arguments.dataset, str(arguments.pairs))
    variables = {"LD_LIBRARY_PATH": library, "MNIST_JOBS_WATCH_GPU": "GPU-fake-0", "CUDA_VISIBLE_DEVICES": ""}
    pairs: list[dict[str, Any]] = run_worker(name, "bench_telemetry_worker.py", *options, variables=variables)
    return pairs


def summarise(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median ratio with its interval, and the sampler's share of a core, misses and lateness."""
    ratios = [pair["ratio"] for pair in pairs]
    rates = [rate for pair in pairs for rate in pair["on"]["rates"].values()]
    result: dict[str, Any] = {
        "pairs": len(pairs),
        "epoch_s": statistics.median(pair["off_s"] for pair in pairs),
        "time_ratio": statistics.median(ratios),
        "time_ratio_interval": median_interval(ratios),
        "cpu_ratio": sum(pair["on"]["cpu_s"] for pair in pairs) / sum(pair["on"]["watched_s"] for pair in pairs),
        "missed_ratio": sum(rate["missed"] for rate in rates) / sum(rate["planned"] for rate in rates),
        "lateness_p95_ms": statistics.median(pair["on"]["rates"]["fast"]["lateness_p95_ms"] for pair in pairs),
    }
    over = [name for name, limit in LIMITS.items() if result[name] > limit]
    return result | {"kept": not over, "over": over}


if __name__ == "__main__":
    sys.exit(main())
