"""Train the same recipe in both frameworks, merge the reports and show the table: ``make demo``."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the slow imports below. It imports this file once more, under another name.
    from jobs.cli.start import run_script

    run_script(__file__)

import argparse
import subprocess
import sys
import time
from pathlib import Path

from jobs.exit_codes import ExitCode
from jobs.recipes import LENET, RECIPES

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a job (default: 3)")
    parser.add_argument("--recipe", choices=RECIPES, default=LENET.name, help=f"default: {LENET.name}")
    arguments = parser.parse_args()

    started = time.monotonic()
    output = ROOT / "demo" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    dataset = choose_dataset()
    for command in (".venv-torch/bin/mnist-torch", ".venv-tf/bin/mnist-tf"):
        options = ["--recipe", arguments.recipe, "--epochs", str(arguments.epochs), "--dataset", dataset]
        print(f"\n$ {command} train {' '.join(options)}", flush=True)
        # The report's line would be long; the report file says the same.
        train: list[str | Path] = [ROOT / command, "train", *options, "--report-dir", output]
        done = subprocess.run(train, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            return done.returncode
    print(flush=True)
    script = ROOT / "scripts" / "merge_reports.py"
    merge: list[str | Path] = [sys.executable, script, output, "-o", output / "comparison"]
    code = subprocess.run(merge, check=False).returncode
    print(f"\nreports:    {output}\ncomparison: {output / 'comparison' / 'comparison.md'}")
    print(f"took {time.monotonic() - started:.0f} s")
    return code


def choose_dataset() -> str:
    """``mnist`` if it is available or can be downloaded, else ``synthetic``; prints which."""
    fetch = subprocess.run([ROOT / ".venv/bin/mnist-torch", "dataset"], check=False, capture_output=True, text=True)
    if fetch.returncode == 0:
        print(f"data: MNIST, verified\n{fetch.stdout.splitlines()[0]}")
        return "mnist"
    print(fetch.stderr.strip(), file=sys.stderr)
    if fetch.returncode != ExitCode.DATASET_REFUSED:
        raise SystemExit(fetch.returncode)
    print("data: MNIST cannot be downloaded, so this demo trains on the SYNTHETIC dataset instead")
    return "synthetic"
