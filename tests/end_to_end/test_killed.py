"""A run that is really killed while it trains is a failed run in the comparison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from tests.end_to_end.conftest import ROOT, SCRIPTS
from tests.support.digits import small_digits, write_idx_folder
from tests.support.programs import KILLED, started_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_merge_counts_a_killed_run_as_failed_and_its_resumed_one_once(
    job: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    data = write_idx_folder(tmp_path / "data", small_digits())
    options: list[str | Path] = [
        "train",
        "--dataset",
        data,
        "--epochs",
        "2",
        "--telemetry",
        "off",
        "--report-dir",
        tmp_path / "reports",
    ]

    def killed(step: int, *more: str | Path) -> None:
        command: list[str | Path] = [
            SCRIPTS["torch"].with_name("python"),
            KILLED,
            "jobs.mnist_torch.cli",
            "1",
            str(step),
            *options,
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def merged(*more: str) -> tuple[dict[str, int], str]:
        command: list[str | Path] = [
            sys.executable,
            ROOT / "scripts/merge_reports.py",
            tmp_path / "reports",
            "-o",
            tmp_path / "out",
        ]
        done = subprocess.run(
            [*command, *more], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == ExitCode.DONE, done.stderr
        (section,) = json.loads((tmp_path / "out/comparison.json").read_text("utf-8"))["sections"]
        return section["sides"][0]["runs_by_status"], done.stderr

    killed(3, "--seed", "5")
    (record,) = started_in(tmp_path / "reports")
    checkpoints: list[str | Path] = [
        "--seed",
        "6",
        "--checkpoint-dir",
        tmp_path / "checkpoints",
        "--checkpoint-steps",
        "2",
    ]
    killed(5, *checkpoints)
    resumed = job("torch", *options, *checkpoints)
    assert resumed.returncode == ExitCode.DONE, resumed.stderr
    counts, warnings = merged("--expect", "3")
    assert counts == {"completed": 1, "failed": 1, "missing": 1}
    (warning,) = warnings.splitlines()
    assert warning.startswith(f"warning: {record.run_id} (")
