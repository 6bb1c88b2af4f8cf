"""A duel of the real programs, each in its own environment."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.report import read
from tests.end_to_end.conftest import ROOT, SCRIPTS
from tests.support.digits import small_digits, write_idx_folder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("job")
def test_duel_of_both_environments_reports_one_block(tmp_path: Path) -> None:
    data = write_idx_folder(tmp_path / "data", small_digits())
    targets = ["--tf", SCRIPTS["tensorflow"], "--torch", SCRIPTS["torch"]]
    command = [sys.executable, ROOT / "scripts/duel.py", tmp_path / "plan", "--blocks", "1", "--seed", "4", *targets]
    train = ["--", "--epochs", "2", "--dataset", data]
    done = subprocess.run([*map(str, command), *map(str, train)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reports = sorted(map(read, (tmp_path / "plan/reports").rglob("*.json")), key=lambda report: report.started_at_utc)
    designs = [report.config.design for report in reports]
    assert [(design.block, design.position) for design in designs if design] == [(0, 0), (0, 1)]
    assert {report.config.framework for report in reports} == set(SCRIPTS)
    assert {(report.config.seed, report.config.device) for report in reports} == {(4, "cpu")}
    # One after the other, and not at once.
    assert reports[0].finished_at_utc <= reports[1].started_at_utc
    assert "single observation" in done.stdout
