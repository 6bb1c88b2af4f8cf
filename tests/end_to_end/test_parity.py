"""From the same weights and batches, both frameworks compute the same; compared through their report files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs.report import read

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from jobs.report.schema import Parity

FRAMEWORKS = ("tensorflow", "torch")


def _traces(
    job: Callable[..., subprocess.CompletedProcess[str]], folder: Path, *arguments: str
) -> tuple[Parity, Parity]:
    traces = []
    for framework in FRAMEWORKS:
        done = job(
            framework, "train", "--epochs", "0", "--device", "cpu", "--report-dir", folder / framework, *arguments
        )
        assert done.returncode == 0, done.stderr
        (path,) = (folder / framework).iterdir()
        parity = read(path).parity
        assert parity is not None
        traces.append(parity)
    return traces[0], traces[1]


def _largest_relative_difference(one: Parity, other: Parity) -> float:
    pairs = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(one.steps, other.steps, strict=True)
        for name in ("loss", "grad_norm")
    ]
    return max(abs(a - b) / abs(b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lenet", "basic-cnn"])
def test_first_logits_agree_in_float32(
    recipe: str, job: Callable[..., subprocess.CompletedProcess[str]], dataset: str, tmp_path: Path
) -> None:
    tf, torch = _traces(job, tmp_path, "--recipe", recipe, "--dataset", dataset, "--parity-steps", "1")
    assert tf.initial_weights_sha256 == torch.initial_weights_sha256
    difference = np.abs(np.array(tf.first_logits) - np.array(torch.first_logits)).max()
    assert difference <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lenet", "basic-cnn"])
def test_twenty_steps_agree_in_float64(
    recipe: str, job: Callable[..., subprocess.CompletedProcess[str]], dataset: str, tmp_path: Path
) -> None:
    options = ("--recipe", recipe, "--dataset", dataset, "--parity-steps", "20", "--precision", "fp64")
    tf, torch = _traces(job, tmp_path, *options)
    assert tf.initial_weights_sha256 == torch.initial_weights_sha256
    assert _largest_relative_difference(tf, torch) <= 1e-12
    norms = [abs(tf.weight_norms[name] - norm) / norm for name, norm in torch.weight_norms.items()]
    assert max(norms) <= 1e-12
