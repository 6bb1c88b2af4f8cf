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
    script, output = ROOT / "scripts" / "merge_reports.py", folder / "comparison"
    merge: list[str | Path] = [sys.executable, script, folder / "reports", "-o", output]
    done = subprocess.run(merge, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    comparison = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    (pair,) = comparison["parity"]
    assert comparison["unpaired_traces"] == comparison["sections"] == []
    return pair  # type: ignore[no-any-return]


def _assert_agreement(job: Job, folder: Path, recipe: str, precision: str, steps: int, dataset: str) -> None:
    options = ("--recipe", recipe, "--precision", precision, "--parity-steps", str(steps), "--dataset", dataset)
    pair = _merged(job, folder, *options)
    assert pair["outcome"] == "agree", pair["text"]
    assert (pair["steps"], pair["tolerance_ratio"]) == (steps, 1e-12)
    assert pair["largest_relative_difference"] <= 1e-12
    assert {code["precision"] for code in pair["traced_code"].values()} == {precision}
    checks = pair["rounding"]
    assert {check["framework"] for check in checks} == (set() if precision == "fp64" else set(FRAMEWORKS))
    assert all(check["within"] and check["states"] >= 12 for check in checks)
    # Not the float64 code twice: the precision rounds as it must.
    logits = [check["usual_error"] for check in checks if check["quantity"] == "logits"]
    assert all(error > {"fp32": 1e-9, "bf16": 1e-4}[precision] for error in logits)


@pytest.mark.parametrize(
    ("recipe", "precision", "steps"),
    [
        # 200 steps of each are traced on MNIST.
        ("lenet", "fp64", 30),
        ("basic-cnn", "fp64", 12),
        ("lenet", "fp32", 24),
        ("lenet", "bf16", 24),
    ],
)
def test_parity_traces_of_both_frameworks_agree(
    recipe: str, precision: str, steps: int, job: Job, tmp_path: Path
) -> None:
    _assert_agreement(job, tmp_path, recipe, precision, steps, "synthetic")


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("recipe", "precision", "steps"),
    [
        ("lenet", "fp64", 200),
        ("basic-cnn", "fp64", 200),
        ("lenet", "fp32", 200),
        ("basic-cnn", "fp32", 24),
        ("lenet", "bf16", 200),
        ("basic-cnn", "bf16", 24),
    ],
)
def test_parity_traces_of_both_frameworks_on_mnist_agree(
    recipe: str, precision: str, steps: int, job: Job, real_mnist: Path, tmp_path: Path
) -> None:
    _assert_agreement(job, tmp_path, recipe, precision, steps, str(real_mnist))


@pytest.mark.mnist
def test_accuracy_after_an_epoch_differs_by_at_most_a_tenth_of_a_point(
    job: Job, real_mnist: Path, tmp_path: Path
) -> None:
    accuracies = []
    for framework in FRAMEWORKS:
        folder = tmp_path / framework
        options = ("--epochs", "1", "--device", "cpu", "--dataset", str(real_mnist))
        done = job(framework, "train", *options, "--report-dir", folder)
        assert done.returncode == 0, done.stderr
        (path,) = folder.iterdir()
        accuracy = read(path).results.test_accuracy_ratio
        assert accuracy is not None
        accuracies.append(accuracy)
    assert abs(accuracies[0] - accuracies[1]) <= 0.001
