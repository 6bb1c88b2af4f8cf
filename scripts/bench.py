"""Measures the default path's speed against the blog post's own programs, and what limits it: ``make bench``.

Each framework trains a recipe in one process in two ways, in turns: the default path, and the post's loop, which is
``--protocol published`` (Keras ``fit`` on ``tf.data``; a ``DataLoader`` with torchvision's transforms). Between the
turns a large matrix product is timed, and after them each layer's products alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import bench_worker
from measurement import ENVIRONMENTS, add_output_option, circumstances, median_interval, run_worker, write_results

IMAGES = {"lenet": 60_000, "basic-cnn": 15_000}
"""The large recipe's epoch is measured on a quarter of its images, since each batch takes the same time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="turns a framework and recipe (default: 5)")
    parser.add_argument("--recipe", choices=IMAGES, action="append", help="one recipe only (default: both)")
    parser.add_argument("--framework", choices=ENVIRONMENTS, action="append", help="one framework only (default: both)")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--dataset", default="mnist", help="as train's (default: mnist)")
    parser.add_argument("--images", type=int, help="training images (default: 60000; basic-cnn on a CPU: 15000)")
    add_output_option(parser, "bench")
    arguments = parser.parse_args()
    measured = circumstances()
    results = [
        bench(name, recipe, arguments)
        for recipe in arguments.recipe or IMAGES
        for name in arguments.framework or ENVIRONMENTS
    ]
    for result in results:
        low, high = result["ratio_interval"]
        print(
            f"{result['recipe']}, {result['framework']}: the post's loop {result['published_epoch_s']:.1f} s an epoch, "
            f"ours {result['ours_epoch_s']:.1f} s, ratio {result['ratio']:.2f} ({low:.2f} to {high:.2f})"
        )
    content = {"device": arguments.device, "precision": arguments.precision, "dataset": arguments.dataset}
    write_results(arguments.output, {**content, "results": results}, measured=measured)
    return 0


def bench(name: str, recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The results of one framework and recipe."""
    print(f"{recipe}, {name}: {arguments.pairs} turns …", file=sys.stderr, flush=True)
    request = {
        "package": f"jobs.{ENVIRONMENTS[name][1]}",
        "recipe": recipe,
        "device": arguments.device,
        "precision": arguments.precision,
        "dataset": arguments.dataset,
        "images": arguments.images or (IMAGES[recipe] if arguments.device == "cpu" else bench_worker.EPOCH_IMAGES),
        "pairs": arguments.pairs,
    }
    measured = run_worker(name, "bench_worker.py", json.dumps(request))
    return {"framework": name, "recipe": recipe, **summarise(measured), **measured}


def summarise(measured: dict[str, Any]) -> dict[str, Any]:
    """The worker's summary, and the interval of the ratio within a turn."""
    ratios = [pair["published_s"] / pair["ours_s"] for pair in measured["pairs"]]
    return {**bench_worker.summarise(measured), "ratio_interval": median_interval(ratios)}


if __name__ == "__main__":
    sys.exit(main())
