"""Makes the duel that docs/duel.md shows: ``make measure-duel``.

Eight blocks of lenet on this machine's CPU. In the middle the duel and its run are killed, and the same command goes
on. A plan that is complete is only merged again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from measurement import ROOT, add_output_option, circumstances, read_report, write_results

BLOCKS = 8
KILLED_IN = "block-003-1-"
"""The name of the run that is killed begins so."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist", help="as train's (default: mnist)")
    parser.add_argument("--epochs", default="1", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/duel", help="default: %(default)s")
    add_output_option(parser, "duel")
    arguments = parser.parse_args()
    measured = circumstances()
    options = ["--", "--recipe", "lenet", "--epochs", arguments.epochs, "--dataset", arguments.dataset]
    start = [sys.executable, ROOT / "scripts/duel.py", arguments.work, "--blocks", str(BLOCKS)]
    command = [str(word) for word in [*start, *options]]
    if not arguments.work.exists():
        run_and_kill(command, arguments.work)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    plan = json.loads((arguments.work / "plan.json").read_text(encoding="utf-8"))
    comparison = json.loads((arguments.work / "comparison/comparison.json").read_text(encoding="utf-8"))
    (section,) = comparison["sections"]
    content = {
        "plan_id": plan["plan_id"],
        "blocks": blocks_of(plan, arguments.work / "reports"),
        "lost": [{name: run[name] for name in ("block", "framework", "reason")} for run in lost_runs(plan)],
        "ratio": next(row for row in section["ratios"] if row["metric"] == "steady_images_per_s"),
        "verdict": section["verdict"]["text"],
    }
    write_results(arguments.output, content, measured=measured)
    return 0


def run_and_kill(command: list[str], work: Path) -> None:
    """Start the duel, and kill it and its run when the run trains."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as duel:
        # The run's first message says what it trains.
        while not (logs := list((work / "logs").glob(f"{KILLED_IN}*"))) or "epoch" not in logs[0].read_text():
            if duel.poll() is not None:
                raise SystemExit(f"the duel ended before {KILLED_IN}")
            time.sleep(0.5)
        for process in [psutil.Process(duel.pid), *psutil.Process(duel.pid).children()]:
            process.send_signal(signal.SIGKILL)


def lost_runs(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in plan["runs"] if run["outcome"] == "lost"]


def blocks_of(plan: dict[str, Any], reports: Path) -> list[dict[str, Any]]:
    """By complete block: its runs in their order, with speed, accuracy and start."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for run in plan["runs"]:
        if run["outcome"] != "completed":
            continue
        report = read_report(reports / f"block-{run['block']:03d}-{run['position']}-{run['framework']}")
        accuracy, started = report["results"]["test_accuracy_ratio"], report["started_at_utc"]
        facts = {"test_accuracy_ratio": accuracy, "started_at_utc": started}
        speed = {"steady_images_per_s": run["steady_images_per_s"]}
        rows.setdefault(run["block"], []).append({"framework": run["framework"], **speed, **facts})
    return [{"block": block, "runs": runs} for block, runs in rows.items() if len(runs) == 2]


if __name__ == "__main__":
    sys.exit(main())
