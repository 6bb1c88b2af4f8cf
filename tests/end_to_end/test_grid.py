"""The 2 x 2 on real MNIST: the post's two programs, and their siblings in the other framework."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.report import read
from tests.end_to_end.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.mnist, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def grid(
    job: Callable[..., subprocess.CompletedProcess[str]], real_mnist: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[tuple[str, str, str], Report]]:
    folder = tmp_path_factory.mktemp("grid")
    reports = {}
    for framework, recipe, protocol in (
        ("torch", "lenet", "published"),
        ("tensorflow", "lenet", "matched"),
        ("tensorflow", "basic-cnn", "published"),
        ("torch", "basic-cnn", "matched"),
    ):
        target = folder / f"{framework}-{recipe}"
        options = (
            "--recipe",
            recipe,
            "--protocol",
            protocol,
            "--seed",
            "1",
            "--device",
            "cpu",
            "--dataset",
            real_mnist,
        )
        done = job(framework, "train", *options, "--report-dir", target)
        assert done.returncode == 0, done.stderr
        (path,) = target.iterdir()
        reports[framework, recipe, protocol] = read(path)
    return folder, reports


def test_grid_lenet_in_torch_reaches_the_published_accuracy(
    grid: tuple[Path, dict[tuple[str, str, str], Report]],
) -> None:
    epochs = grid[1]["torch", "lenet", "published"].results.epochs
    assert epochs[0].test_loss == pytest.approx(0.48, abs=0.05)
    assert epochs[4].test_accuracy_ratio is not None
    assert epochs[4].test_accuracy_ratio >= 0.95


def test_grid_basic_cnn_in_tensorflow_reaches_the_published_accuracy(
    grid: tuple[Path, dict[tuple[str, str, str], Report]],
) -> None:
    accuracy = grid[1]["tensorflow", "basic-cnn", "published"].results.test_accuracy_ratio
    assert accuracy is not None
    assert accuracy >= 0.972


@pytest.mark.parametrize(
    ("published", "matched"),
    [
        (("torch", "lenet", "published"), ("tensorflow", "lenet", "matched")),
        (("tensorflow", "basic-cnn", "published"), ("torch", "basic-cnn", "matched")),
    ],
    ids=["lenet", "basic-cnn"],
)
def test_grid_other_framework_is_within_half_a_point(
    published: tuple[str, str, str],
    matched: tuple[str, str, str],
    grid: tuple[Path, dict[tuple[str, str, str], Report]],
) -> None:
    accuracies = [grid[1][cell].results.test_accuracy_ratio for cell in (published, matched)]
    assert accuracies[0] is not None
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)


def test_grid_reports_are_merged(grid: tuple[Path, dict[tuple[str, str, str], Report]], tmp_path: Path) -> None:
    merge: list[str | Path] = [sys.executable, ROOT / "scripts" / "merge_reports.py", grid[0], "-o", tmp_path]
    done = subprocess.run(merge, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {"comparison.json", "comparison.md", "comparison.html", "runs.csv"}
    assert {path.name for path in tmp_path.iterdir()} == files
