"""From the same weights and batches, both frameworks compute the same: traced in their environments, then merged."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jobs.report import read
from tests.end_to_end.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Job = Callable[..., subprocess.CompletedProcess[str]]

FRAMEWORKS = ("tensorflow", "torch")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def _merged(job: Job, folder: Path, *arguments: str) -> dict[str, Any]:
    """The one pair of traces in the merge of both frameworks' reports."""
    for framework in FRAMEWORKS:
        options = ("--epochs", "0", "--device", "cpu", "--report-dir", folder / "reports")
        done = job(framework, "train", *options, *arguments)
        assert done.returncode == 0, done.stderr
    merge = [sys.executable, ROOT / "scripts" / "merge_reports.py", folder / "reports", "-o", folder / "comparison"]
    done = subprocess.run(merge, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    comparison = json.loads((folder / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    (pair,) = comparison["parity"]
    assert comparison["unpaired_traces"] == comparison["sections"] == []
    return pair  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("recipe", "precision", "steps", "tolerance"),
    [
        ("lenet", "fp64", 200, 1e-12),
        ("basic-cnn", "fp64", 200, 1e-12),
        ("lenet", "fp32", 100, 1e-6),
        # Adam amplifies what float32 rounds: only what comes before the first update can be held to a tolerance.
        ("basic-cnn", "fp32", 1, 1e-6),
    ],
)
def test_the_traces_agree(
    recipe: str, precision: str, steps: int, tolerance: float, job: Job, dataset: str, tmp_path: Path
) -> None:
    options = ("--recipe", recipe, "--precision", precision, "--parity-steps", str(steps), "--dataset", dataset)
    pair = _merged(job, tmp_path, *options)
    assert pair["tolerance_ratio"] == tolerance
    assert pair["steps"] == steps
    assert pair["outcome"] == "agree", pair["text"]
    assert pair["largest_relative_difference"] <= tolerance


def test_accuracy_after_an_epoch_is_within_a_tenth_of_a_point(job: Job, mnist: str, tmp_path: Path) -> None:
    accuracies = []
    for framework in FRAMEWORKS:
        folder = tmp_path / framework
        done = job(framework, "train", "--epochs", "1", "--device", "cpu", "--dataset", mnist, "--report-dir", folder)
        assert done.returncode == 0, done.stderr
        (path,) = folder.iterdir()
        accuracy = read(path).results.test_accuracy_ratio
        assert accuracy is not None
        accuracies.append(accuracy)
    assert abs(accuracies[0] - accuracies[1]) <= 0.001
