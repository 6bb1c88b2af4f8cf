"""A short run on a GPU: the page says that it is too short to judge, and with ``--repeat`` it has the figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jobs.report import read
from tests.end_to_end.conftest import ROOT
from tests.support import fake_nvml
from tests.support.digits import small_digits, write_idx_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.report import Report

    Job = Callable[..., subprocess.CompletedProcess[str]]

SENTENCE = re.compile(r"too short to judge: [0-9.]+ s of training; use --repeat ([0-9]+) or --epochs [0-9]+")
ENOUGH_S = 5.0
"""The simulated utilization is over the last second, so that the first second of a phase has no reading."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def train(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Report, str]]:
    """Train one epoch of 650 images beside a simulated GPU, which is observed; return the report and what was said."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nvml.build(tmp_path)))
    monkeypatch.setenv("MNIST_JOBS_WATCH_GPU", "GPU-fake-0")
    data = write_idx_folder(tmp_path / "data", small_digits())

    def run(framework: str, folder: Path, *arguments: str) -> tuple[Report, str]:
        common = ("train", "--device", "cpu", "--epochs", "1", "--dataset", data, "--sample-ms", "50")
        done = job(framework, *common, "--report-dir", folder, *arguments)
        assert done.returncode == 0, done.stderr
        (path,) = folder.glob("*.json")
        return read(path), done.stderr

    return run


def _merge(reports: Path, output: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The only side's results, and the text of each output for people."""
    script = ROOT / "scripts" / "merge_reports.py"
    command: list[str | Path] = [sys.executable, script, reports, "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    comparison = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    ((side,),) = (section["sides"] for section in comparison["sections"])
    texts = {name: (output / name).read_text(encoding="utf-8") for name in ("comparison.md", "comparison.html")}
    return side, {"terminal": " ".join(done.stdout.split()), **texts}


# What differs between the frameworks is tested in tests/adapter/test_repeats.py.
def test_short_gpu_run_has_figures_on_the_page_with_repeat_and_the_sentence_without(
    train: Callable[..., tuple[Report, str]], tmp_path: Path
) -> None:
    short, said = train("torch", tmp_path / "short")
    sentence = SENTENCE.search(said)
    assert sentence is not None, said
    side, texts = _merge(tmp_path / "short", tmp_path / "short-merged")
    assert all(SENTENCE.search(text.replace("\\", "")) for text in texts.values()), texts
    assert {metric["n"] for metric in side["metrics"] if metric["name"].startswith("gpu_")} == {0}

    # A sixth of what is advised is enough here, unless the machine became faster in the meantime.
    repeat, report = max(2, int(sentence[1]) // 6), short
    while report.training is None or report.training.duration_s < ENOUGH_S:
        folder = tmp_path / f"repeat-{repeat}"
        report, said = train("torch", folder, "--repeat", str(repeat))
        repeat *= 2
    assert not SENTENCE.search(said)
    assert report.results.epochs[0].test_loss == short.results.epochs[0].test_loss
    side, texts = _merge(folder, tmp_path / "merged")
    figures = {metric["name"]: metric for metric in side["metrics"]}
    for name in ("gpu_util_percent", "gpu_sm_util_percent", "gpu_power_w"):
        assert figures[name]["n"] == 1, figures[name]
        assert figures[name]["readings"]["n"] >= 20
        assert figures[name]["readings"]["coverage_ratio"] >= 0.9
    # The simulated GPU takes 100 W at all times.
    assert figures["gpu_power_w"]["median"] == pytest.approx(100)
    speed = report.results.steady_images_per_s
    assert speed is not None
    expected_j = 100 / speed * 1e6
    # Energy is also counted between the trainings.
    assert figures["gpu_energy_j_per_million_images"]["median"] == pytest.approx(expected_j, rel=0.1)
    for name, text in texts.items():
        assert not SENTENCE.search(text.replace("\\", "")), name
        for label in ("GPU utilization in training", "GPU SM activity", "GPU power", "GPU energy per image"):
            assert label in text, (name, label)
        assert re.search(r"utilization [0-9]+, [0-9]+ %", text), name
