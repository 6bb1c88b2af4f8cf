"""Measures the time and memory of a merge of many reports: ``make bench-merge``."""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from measurement import ROOT, add_output_option, circumstances, write_results

if TYPE_CHECKING:
    from jobs.choices import FrameworkName

SAMPLES = 300
RECIPES: tuple[Literal["lenet", "basic-cnn"], ...] = ("lenet", "basic-cnn")
FRAMEWORKS: tuple[FrameworkName, ...] = ("tensorflow", "torch")
COLUMNS = ("util_percent", "sm_util_percent", "power_w", "memory_used_bytes", "sm_clock_hz", "cpu_percent")
RUN, NODE, SEED, SPEED = "R0000000R", "N000N", "77777777", "88888.75"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--reports", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="how many, one merge each"
    )
    parser.add_argument("--keep", type=Path, help="generate the reports in this folder and keep them")
    add_output_option(parser, "merge")
    arguments = parser.parse_args()
    measured = circumstances()
    results = []
    print(f"{'reports':>9} {'input':>9} {'seconds':>9} {'of CPU':>9} {'peak memory':>12}")
    # The system reports the maximum of all ended processes, so the smallest merge runs first.
    for count in sorted(arguments.reports):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.keep or Path(temporary)) / f"reports-{count}"
            size = generate(folder, count)
            seconds, cpu, peak = measure(folder, Path(temporary) / "comparison")
        print(f"{count:>9,} {size / 1e6:>6,.0f} MB {seconds:>9.2f} {cpu:>9.2f} {peak / 1e6:>9,.0f} MB", flush=True)
        results.append(
            {"reports": count, "input_bytes": size, "wall_s": seconds, "cpu_s": cpu, "peak_memory_bytes": peak}
        )
    write_results(arguments.output, {"results": results}, measured=measured)
    return 0


def generate(folder: Path, count: int) -> int:
    """Write ``count`` reports of GPU runs of half a minute, sampled ten times a second, and return their bytes."""
    noise = random.Random(20_200_813)  # noqa: S311
    texts = [template(recipe, framework, noise) for recipe, framework in product(RECIPES, FRAMEWORKS)]
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for index in range(count):
        speed = 10_000 * noise.lognormvariate(0, 0.02)
        text = texts[index % len(texts)]
        # Serializing each report would take longer than the merge.
        for placeholder, value in (
            (RUN, f"{index:07}"),
            (NODE, f"{index // 4 % 50:03}"),
            (SEED, str(index)),
            (SPEED, repr(speed)),
        ):
            text = text.replace(placeholder, value)
        size += (folder / f"bench-{index:07}.json").write_text(text, encoding="utf-8")
    return size


def template(recipe: Literal["lenet", "basic-cnn"], framework: FrameworkName, noise: random.Random) -> str:
    """A report with placeholders where runs differ."""
    # The tests' builder makes valid reports.
    sys.path.insert(0, str(ROOT))
    from jobs.report import to_text  # noqa: PLC0415
    from tests.support.reports import make_report  # noqa: PLC0415

    kubernetes = {"node": f"node-{NODE}", "namespace": "bench", "pod": f"pod-{RUN}", "job": "bench", "index": 0}
    series = {
        "columns": list(COLUMNS),
        "units": ["%", "%", "W", "B", "Hz", "%"],
        "t_s": [sample / 10 for sample in range(SAMPLES)],
        "values": [[round(noise.uniform(0, 100), 3) for _ in range(SAMPLES)] for _ in COLUMNS],
    }
    report = make_report(
        recipe=recipe,
        framework=framework,
        gpu=True,
        epochs=5,
        run_id=f"bench-{RUN}",
        seed=int(SEED),
        images_per_s=float(SPEED),
        peak_flop_per_s=5e13,
        timeseries=True,
        changes={"environment.kubernetes": kubernetes, "devices.0.uuid": f"GPU-{NODE}", "timeseries": series},
    )
    return to_text(report)


def measure(folder: Path, output: Path) -> tuple[float, float, int]:
    """Merge ``folder``; returns its seconds, its seconds of CPU, and the largest resident memory of its processes."""
    command = [sys.executable, str(ROOT / "scripts" / "merge_reports.py"), str(folder), "-o", str(output)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Linux counts kilobytes here, macOS bytes.
    return seconds, cpu, after.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
