"""Measure a merge of many reports: how long it takes and how much memory, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 300
COLUMNS = ("util_percent", "sm_util_percent", "power_w", "memory_used_bytes", "sm_clock_hz", "cpu_percent")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, nargs="+", default=[1_000, 10_000], help="how many, one merge each")
    parser.add_argument("--keep", type=Path, help="generate the reports here, and leave them there")
    arguments = parser.parse_args()
    print(f"{'reports':>9} {'input':>9} {'seconds':>9} {'peak memory':>12}")
    for count in arguments.reports:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.keep or Path(temporary)) / f"reports-{count}"
            size = generate(folder, count)
            seconds, peak = measure(folder, Path(temporary) / "comparison")
        print(f"{count:>9,} {size / 1e6:>6,.0f} MB {seconds:>9.2f} {peak / 1e6:>9,.0f} MB", flush=True)
    return 0


def generate(folder: Path, count: int) -> int:
    """Write ``count`` reports of GPU runs of half a minute, sampled ten times a second, and return their bytes."""
    # The tests' own builder, so that what is measured is a valid report.
    sys.path.insert(0, str(ROOT))
    from tests.support.reports import make_report  # noqa: PLC0415

    noise = random.Random(20_200_813)  # noqa: S311
    templates = {
        (recipe, framework): json.loads(
            make_report(recipe=recipe, framework=framework, gpu=True, epochs=5).model_dump_json()
        )
        for recipe in ("lenet", "basic-cnn")
        for framework in ("tensorflow", "torch")
    }
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for at in range(count):
        data = templates[("lenet", "basic-cnn")[at % 2], ("tensorflow", "torch")[at // 2 % 2]]
        data["run_id"] = f"bench-{at:07}"
        data["config"]["seed"] = at
        data["results"]["steady_images_per_s"] = 10_000 * noise.lognormvariate(0, 0.02)
        data["environment"]["kubernetes"] = {
            "node": f"node-{at % 200}", "namespace": "bench", "pod": f"pod-{at}", "job": "bench", "index": at,
        }  # fmt: skip
        data["devices"][0]["uuid"] = f"GPU-{at % 200:032}"
        data["timeseries"] = {
            "columns": list(COLUMNS),
            "units": ["%", "%", "W", "B", "Hz", "%"],
            "t_s": [sample / 10 for sample in range(SAMPLES)],
            "values": [[round(noise.uniform(0, 100), 3) for _ in range(SAMPLES)] for _ in COLUMNS],
        }
        size += (folder / f"{data['run_id']}.json").write_text(json.dumps(data, indent=2))
    return size


def measure(folder: Path, output: Path) -> tuple[float, int]:
    """Merge ``folder`` and return the seconds it took and the most bytes any process had resident."""
    command = [sys.executable, str(ROOT / "scripts" / "merge_reports.py"), str(folder), "-o", str(output)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT)})
    seconds = time.perf_counter() - started
    # Linux counts kilobytes here, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
