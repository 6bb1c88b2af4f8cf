"""What ``--compile-cache`` saves: ``make bench-compile-cache``. One cold run a framework, and warm ones after it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measurement import ENVIRONMENTS, add_output_option, circumstances, console_script, write_results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", type=int, default=2, help="warm runs (default: 2)")
    add_output_option(parser, "compile_cache")
    arguments = parser.parse_args()
    measured = circumstances()
    results = [measure(framework, arguments.warm) for framework in ENVIRONMENTS]
    write_results(arguments.output, {"recipe": "lenet", "results": results}, measured=measured)
    return 0


def measure(framework: str, warm: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        times_s = [first_step_s(framework, cache, Path(folder) / f"reports-{run}") for run in range(1 + warm)]
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(f"{framework}: first step {', '.join(f'{time_s:.1f}' for time_s in times_s)} s", file=sys.stderr, flush=True)
    return {"framework": framework, "cold_s": times_s[0], "warm_s": times_s[1:], "cache_bytes": size}


def first_step_s(framework: str, cache: Path, reports: Path) -> float:
    """Length of the phase that compiles, in seconds."""
    options = ["--dataset", "synthetic", "--device", "cpu", "--execution", "compiled", "--compile-cache", cache]
    command = [console_script(framework), "train", "--epochs", "1", *options, "--report-dir", reports]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (path,) = reports.glob("*.json")
    phases = json.loads(path.read_text(encoding="utf-8"))["phases"]
    return sum(phase["end_s"] - phase["start_s"] for phase in phases if phase["name"] == "first_step")


if __name__ == "__main__":
    sys.exit(main())
