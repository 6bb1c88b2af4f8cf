"""How fast is the default path? Against the idiomatic loop and the machine's own limit: ``make bench``.

All train the same recipe from the same weights on the same batches with the same arithmetic, in one process, in
turns. The idiomatic loop is ``--input streamed --execution eager``: torchvision and a ``DataLoader`` in torch,
``tf.data`` and Keras ``fit`` in TensorFlow, where ``fit`` in a traced graph is shown beside it. The limit is a large
matrix product's speed, measured between the turns.
"""

from __future__ import annotations

import argparse
import json
import math
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
WORKER = ROOT / "scripts/bench_worker.py"
FRAMEWORKS = {"tensorflow": (".venv-tf", "mnist_tf"), "torch": (".venv-torch", "mnist_torch")}
IMAGES = {"lenet": 60_000, "basic-cnn": 15_000}
"""A large recipe's epoch is measured on a quarter of its images: the time is the same for each batch."""
EPOCH_IMAGES = 60_000
BATCH = 64
RESAMPLES = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="turns a framework and recipe (default: 5)")
    parser.add_argument("--recipe", choices=IMAGES, action="append", help="one recipe only (default: both)")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="one framework only (default: both)")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--dataset", default="mnist", help="as train's (default: mnist)")
    parser.add_argument("--images", type=int, help="training images (default: 60000; basic-cnn on a CPU: 15000)")
    parser.add_argument("--no-accuracy", action="store_true", help="leave out the runs to the post's accuracy")
    parser.add_argument("--output", type=Path, default=ROOT / "reports/bench.json")
    arguments = parser.parse_args()
    results = [
        bench(name, recipe, arguments)
        for recipe in arguments.recipe or IMAGES
        for name in arguments.framework or FRAMEWORKS
    ]
    show(results)
    show_products(results)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpu_count": os.cpu_count(), "platform": platform.platform()}
    content = {"machine": machine, "precision": arguments.precision, "results": results}
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nraw figures: {arguments.output}")
    return 0


def bench(name: str, recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one framework and recipe."""
    environment, package = FRAMEWORKS[name]
    print(f"{recipe}, {name}: {arguments.pairs} turns …", file=sys.stderr, flush=True)
    request = {
        "package": f"jobs.{package}",
        "recipe": recipe,
        "device": arguments.device,
        "precision": arguments.precision,
        "dataset": arguments.dataset,
        "images": arguments.images or (IMAGES[recipe] if arguments.device == "cpu" else EPOCH_IMAGES),
        "pairs": arguments.pairs,
    }
    done = subprocess.run(
        [ROOT / environment / "bin/python", WORKER, json.dumps(request)], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    to_accuracy = None if arguments.no_accuracy else time_to_accuracy(name, recipe, arguments)
    return {"framework": name, "recipe": recipe, **summarise(found), "time_to_accuracy": to_accuracy, "raw": found}


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Seconds an epoch of 60,000 images, the ratio with its interval, and the share of the ceiling."""
    pairs = found["pairs"]
    scale = EPOCH_IMAGES / found["images"]
    ratios = [pair["idiomatic_s"] / pair["ours_s"] for pair in pairs]
    interval = stats.bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    flop = found["flop_per_image"] * found["images"]
    ceiling = max(pair["ceiling_flop_per_s"] for pair in pairs)
    traced = [pair["traced_s"] / pair["ours_s"] for pair in pairs if "traced_s" in pair]
    first, second = found["losses"]["ours"], found["losses"]["idiomatic"]
    return {
        "ours_epoch_s": scale * statistics.median(pair["ours_s"] for pair in pairs),
        "idiomatic_epoch_s": scale * statistics.median(pair["idiomatic_s"] for pair in pairs),
        "ratio": statistics.median(ratios),
        "ratio_interval": [float(interval.low), float(interval.high)],
        "traced_ratio": statistics.median(traced) if traced else None,
        "achieved_flop_per_s": flop / statistics.median(pair["ours_s"] for pair in pairs),
        "ceiling_flop_per_s": ceiling,
        "ceiling_share_ratio": flop / statistics.median(pair["ours_s"] for pair in pairs) / ceiling,
        "loss_difference_ratio": abs(first[0] / second[0] - 1),
    }


def time_to_accuracy(name: str, recipe: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Training seconds to the post's own accuracy in one run of the job; only MNIST has one."""
    if arguments.dataset == "synthetic":
        return None
    environment, package = FRAMEWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--recipe", recipe, "--device", arguments.device, "--precision", arguments.precision]
        subprocess.run(
            [ROOT / environment / "bin" / package.replace("_", "-"), "train", *options, "--report-dir", folder],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        reports = list(Path(folder).glob("*.json"))
        results = json.loads(reports[0].read_text(encoding="utf-8"))["results"] if reports else {}
    return {key: results.get(key) for key in ("target_accuracy_ratio", "test_accuracy_ratio", "time_to_accuracy_s")}


def show(results: list[dict[str, Any]]) -> None:
    """A Markdown table, as the documentation shows it."""
    print("\n| | idiomatic loop | ours | ratio (95 %) | traced fit, ratio | GFLOP/s | of the ceiling | to accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    for result in results:
        low, high = result["ratio_interval"]
        reached = result["time_to_accuracy"] or {}
        seconds = reached.get("time_to_accuracy_s")
        traced = "" if result["traced_ratio"] is None else f"{result['traced_ratio']:.2f}"
        to_accuracy = "not reached" if seconds is None else f"{seconds:.1f} s"
        print(
            f"| {result['recipe']}, {result['framework']} | {result['idiomatic_epoch_s']:.1f} s | "
            f"{result['ours_epoch_s']:.1f} s | {result['ratio']:.2f} ({low:.2f}…{high:.2f}) | {traced} | "
            f"{result['achieved_flop_per_s'] / 1e9:.0f} of {result['ceiling_flop_per_s'] / 1e9:.0f} | "
            f"{100 * result['ceiling_share_ratio']:.0f} % | {to_accuracy} |"
        )


def show_products(results: list[dict[str, Any]]) -> None:
    """How fast the libraries compute each layer's products alone, and what of a step that leaves."""
    kinds = ("forward", "input gradient", "weight gradient")
    print("\n| GFLOP/s | forward | input gradient | weight gradient | together |")
    print("|---|---|---|---|---|")
    for result in results:
        raw = result["raw"]
        alone = raw["products"]
        layers = dict.fromkeys(one["layer"] for one in alone)
        for layer in layers:
            found = {one["product"]: one for one in alone if one["layer"] == layer}
            speeds = [f"{found[kind]['flop'] / found[kind]['s'] / 1e9:.0f}" if kind in found else "" for kind in kinds]
            together_ms = 1e3 * sum(one["s"] for one in found.values())
            print(
                f"| {result['recipe']}, {result['framework']}, {layer} | {' | '.join(speeds)} | {together_ms:.2f} ms |"
            )
        if alone:
            step_ms = 1e3 * result["ours_epoch_s"] / math.ceil(EPOCH_IMAGES / BATCH)
            all_ms = 1e3 * sum(one["s"] for one in alone)
            flop = sum(one["flop"] for one in alone)
            speed = f"{flop / all_ms / 1e6:.0f}"
            print(
                f"| **{result['recipe']}, {result['framework']}, a step** | all {speed} | | | "
                f"{all_ms:.1f} of {step_ms:.1f} ms, {100 * all_ms / step_ms:.0f} % |"
            )


if __name__ == "__main__":
    sys.exit(main())
