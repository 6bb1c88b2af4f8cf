"""Measures the default path's speed on a GPU against the post's own programs, inside the images: ``make bench-gpu``.

``measure`` runs in an image and prints what it measured as JSON: each recipe in both ways, in turns, in one process.
``combine`` puts the frameworks' answers into one file, with the goals and whether they were met. Both use only what the
images contain.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_worker

from jobs import __version__
from jobs.errors import BadInput, JobError
from jobs.io.cpus import usable_cpus
from jobs.recipes import RECIPES
from jobs.telemetry import monitor
from jobs.training.environment import cpu_model

if TYPE_CHECKING:
    from jobs.adapter import FrameworkDevice

FORMAT = "mnist-jobs bench-gpu 2"
GOALS = {"lenet": 50.0, "basic-cnn": 15.0}
"""By recipe: how many times as fast as the post's program the default path shall be on a GPU."""
SAME_IN_ALL = ("version", "git_sha", "gpu", "cpu")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="measure the framework that is installed here; prints JSON")
    measuring.add_argument("--pairs", type=int, default=5, help="turns a recipe (default: 5)")
    measuring.add_argument("--recipe", choices=RECIPES, action="append", help="one recipe only (default: all)")
    measuring.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="cpu is for tests of this program")
    measuring.add_argument("--dataset", default="mnist", help="as train's (default: mnist)")
    measuring.add_argument(
        "--images", type=int, default=bench_worker.EPOCH_IMAGES, help="training images (default: 60000)"
    )
    measuring.set_defaults(run=measure)
    combining = commands.add_parser("combine", help="print the one file of several answers")
    combining.add_argument("answers", type=Path, nargs="+")
    combining.set_defaults(run=combine)
    options = parser.parse_args(arguments)
    try:
        content = options.run(options)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(content, indent=1, ensure_ascii=False))
    return 0


def plan(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The worker's requests, one a recipe."""
    package = "jobs.mnist_tf" if find_spec("tensorflow") is not None else "jobs.mnist_torch"
    common = {key: getattr(options, key) for key in ("device", "dataset", "images", "pairs")}
    return [
        {"package": package, "recipe": recipe, "precision": "fp32", **common} for recipe in options.recipe or RECIPES
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What this image's framework does.

    Raises:
        NoUsableGpu: there is no GPU that the framework can use.
    """
    requests = plan(options)
    device = bench_worker.load(requests[0]).select_device(options.device)
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "git_sha": os.environ.get("MNIST_JOBS_GIT_SHA") or None,
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": _gpu(device),
        # The post's loop waits for its data loader, a process on the CPU.
        "cpu": {"model": cpu_model(), "usable_cpus": usable_cpus()},
        "results": [],
    }
    for request in requests:
        print(f"{request['recipe']}: {options.pairs} turns …", file=sys.stderr, flush=True)
        measured = bench_worker.measure(request)
        name = "tensorflow" if request["package"] == "jobs.mnist_tf" else "torch"
        content["results"].append({"framework": name, "recipe": request["recipe"], **summarise(measured), **measured})
    return content


def _gpu(device: FrameworkDevice) -> dict[str, Any]:
    """The device as NVML describes it, which is the same for both frameworks; null where it does not answer."""
    watch = monitor.watch(clock=time.monotonic, gpu_untouched=False)
    facts = asdict(watch.attach(device))
    watch.stop([])
    names = ("name", "uuid", "driver_version", "compute_capability", "memory_total_bytes", "power_limit_w")
    return {"framework_name": device.name, **{name: facts[name] for name in names}}


def summarise(measured: dict[str, Any]) -> dict[str, Any]:
    """The worker's summary, and the range of the ratios within a turn."""
    ratios = [pair["published_s"] / pair["ours_s"] for pair in measured["pairs"]]
    return {**bench_worker.summarise(measured), "ratio_range": [min(ratios), max(ratios)]}


def combine(options: argparse.Namespace) -> dict[str, Any]:
    """One file of the frameworks' answers.

    Raises:
        BadInput: an answer cannot be read, or they are of different versions, GPUs or CPUs.
    """
    answers = [_read(path) for path in options.answers]
    first = answers[0]
    for path, answer in zip(options.answers, answers, strict=True):
        for name in SAME_IN_ALL:
            one, other = (_gpu_identity(each[name]) if name == "gpu" else each[name] for each in (first, answer))
            if one != other:
                raise BadInput(
                    f"{path}: its {name} is {other}, that of {options.answers[0]} is {one}; measure both anew"
                )
    results = [result | {"goal_ratio": GOALS[result["recipe"]]} for answer in answers for result in answer["results"]]
    for result in results:
        result["goal_met"] = result["ratio"] >= result["goal_ratio"]
        print(
            f"{result['recipe']}, {result['framework']} {result['framework_version']}: the post's program "
            f"{result['published_epoch_s']:.2f} s an epoch, ours {result['ours_epoch_s']:.3f} s, ratio "
            f"{result['ratio']:.1f} ({result['ratio_range'][0]:.1f} to {result['ratio_range'][1]:.1f}), "
            f"goal {result['goal_ratio']:.0f}: {'met' if result['goal_met'] else 'not met'}",
            file=sys.stderr,
        )
    return {name: first[name] for name in ("format", *SAME_IN_ALL, "date_utc")} | {"results": results}


def _gpu_identity(gpu: dict[str, Any]) -> str:
    """A GPU is the same one by its UUID, or by its name where NVML gives none; frameworks may name it differently."""
    return str(gpu["uuid"] or gpu["framework_name"])


def _read(path: Path) -> dict[str, Any]:
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); run `make bench-gpu` again") from error
    if not isinstance(answer, dict) or answer.get("format") != FORMAT:
        raise BadInput(f"{path} is no answer in the format {FORMAT!r}; run `make bench-gpu` again")
    return answer


if __name__ == "__main__":
    sys.exit(main())
