"""The part of ``make bench-gpu`` that runs in an image."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from jobs.io.cpus import usable_cpus
from jobs.training.environment import cpu_model
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.app import Program

SCRIPT = ROOT / "scripts/bench_gpu.py"


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_measure_without_a_gpu_is_refused_in_one_line() -> None:
    done = _run("measure")
    assert done.returncode == ExitCode.NO_USABLE_GPU
    assert done.stdout == ""
    assert "error: --device gpu: " in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_measured_answer_is_combined_into_one_file(folder: Path, program: Program, tmp_path: Path) -> None:
    options = ["--device", "cpu", "--dataset", str(folder), "--images", "128", "--pairs", "1", "--recipe", "lenet"]
    measured = _run("measure", *options)
    assert measured.returncode == 0, measured.stderr
    (tmp_path / "answer.json").write_text(measured.stdout)
    done = _run("combine", tmp_path / "answer.json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    (result,) = content["results"]
    assert (result["framework"], result["recipe"], result["goal_ratio"]) == (program.framework, "lenet", 50.0)
    assert result["ratio"] == result["pairs"][0]["published_s"] / result["pairs"][0]["ours_s"] > 0
    assert content["gpu"]["framework_name"] == "cpu"
    assert content["gpu"]["uuid"] is None
    assert content["cpu"] == {"model": cpu_model(), "usable_cpus": usable_cpus()}
