"""Programs that stand for ``mnist-tf`` and ``mnist-torch`` in tests of the duel.

They take train's options and write a valid report, but train nothing and start at once. The variable ``DUEL_TEST``
says by block and position what else happens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.choices import FrameworkName

SPEED = {"tensorflow": 10_000.0, "torch": 12_000.0}


def install(folder: Path, framework: FrameworkName) -> Path:
    """Write the program of ``framework`` and the report that it fills into ``folder``."""
    from tests.support.reports import make_report, write_report

    write_report(make_report(framework=framework), folder / f"{framework}.template")
    path = folder / framework
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {folder / framework}.template "$@"\n')
    path.chmod(0o755)
    return path


def main(template: str, *words: str) -> None:
    assert words[0] == "train"
    options = dict(zip(words[1::2], words[2::2], strict=True))
    plan_id, block, position = options["--design"].split(":")
    action = json.loads(os.environ.get("DUEL_TEST", "{}")).get(f"{block}:{position}", "")
    for step in filter(None, action.split(",")):
        _act(step)
    report: dict[str, Any] = json.loads(Path(template).read_text())
    framework = report["environment"]["framework"]["name"]
    report["run_id"] = f"{framework}-{block}-{position}"
    report["config"] |= {
        "seed": int(options["--seed"]),
        "design": {"plan_id": plan_id, "block": int(block), "position": int(position)},
    }
    # One in a thousand between the blocks, so that there is something to measure.
    report["results"]["steady_images_per_s"] = SPEED[framework] * (1 + int(block) / 1000)
    if action == "below":
        report |= {"status": "below_reference", "status_reason": "too low"}
    text = json.dumps(report)
    Path(options["--report-dir"], f"{report['run_id']}.json").write_text(text[:100] if action == "damage" else text)
    sys.exit(4 if action == "below" else 0)


def _act(step: str) -> None:
    match step.partition("="):
        case "kill-duel", _, _:
            os.kill(os.getppid(), signal.SIGKILL)
        case "terminate-duel", _, _:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
        case "terminate-duel-and-finish", _, _:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getppid(), signal.SIGTERM)
        case "kill", _, _:
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait", _, fifo:
            # Until the test opens the other end.
            Path(fifo).read_bytes()
        case "exit", _, code:
            sys.stderr.write(f"error: cannot go on, code {code}\n")
            sys.exit(int(code))
        case "below" | "damage", _, _:
            pass
        case _:
            raise AssertionError(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
