"""Shared by the scripts that measure: running jobs and workers, statistics, and the files in ``docs/results``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from jobs.datasets import load
from jobs.datasets.idx import IDX_FILES
from jobs.training.environment import cpu_model

if TYPE_CHECKING:
    import argparse

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results"
ENVIRONMENTS = {"tensorflow": (".venv-tf", "mnist_tf"), "torch": (".venv-torch", "mnist_torch")}
"""Each framework's environment and package; its console script is the package's name with a hyphen."""
RESAMPLES = 10_000


def run_job(framework: str, *options: str, report_dir: Path, variables: dict[str, str] | None = None) -> dict[str, Any]:
    """Train with a framework's own program on the CPU and return the report."""
    folder, package = ENVIRONMENTS[framework]
    start: list[str | Path] = [ROOT / folder / "bin" / package.replace("_", "-"), "train", "--device", "cpu"]
    command = [*start, *options, "--report-dir", report_dir]
    environment = {**os.environ, **(variables or {})}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return read_report(report_dir)


def run_worker(framework: str, script: str, *arguments: str, variables: dict[str, str] | None = None) -> Any:
    """Run a script of this folder in a framework's own environment and return the JSON that it prints last."""
    command: list[str | Path] = [ROOT / ENVIRONMENTS[framework][0] / "bin/python", ROOT / "scripts" / script]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run([*command, *arguments], env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_part(folder: Path, train: int, test: int) -> Path:
    """An IDX folder with the first of the synthetic digits."""
    data = load("synthetic")
    folder.mkdir()
    arrays = (data.train_images[:train], data.train_labels[:train], data.test_images[:test], data.test_labels[:test])
    for file, array in zip(IDX_FILES, arrays, strict=True):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / file.stem).write_bytes(header + array.tobytes())
    return folder


def median_interval(values: list[float]) -> list[float]:
    """The bootstrap interval of the median (95 %, percentile method)."""
    random = np.random.default_rng(1)
    found = stats.bootstrap((values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=random)
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def read_report(folder: Path) -> dict[str, Any]:
    """The one report in ``folder``."""
    (path,) = folder.glob("*.json")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


CODE = ("jobs", "scripts", "tests", "pyproject.toml", "uv.lock")


def circumstances() -> dict[str, Any]:
    """Commit, date and processor. A commit that ends in ``-dirty`` had changes of the code that were not committed."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    if commit and _git("status", "--porcelain", "--", *CODE):
        commit += "-dirty"
    return {
        "commit": commit or None,
        "date_utc": datetime.now(UTC).date().isoformat(),
        "cpu_model": cpu_model(),
        "cpu_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_instructions": _instructions(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def add_output_option(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / f"{name}.json", help="default: %(default)s")


def write_results(path: Path, content: dict[str, Any], *, measured: dict[str, Any]) -> None:
    """Write ``content`` with the ``circumstances()`` that were read before it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"measured": measured, **content}, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
    print(f"\nfigures: {path}", file=sys.stderr)


def _instructions() -> str | None:
    """The widest vector instructions, as ``/proc/cpuinfo`` names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return next((name for name in ("avx512f", "avx2", "avx") if name in flags), None)
