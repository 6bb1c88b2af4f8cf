"""``make bench-gpu`` without a GPU: what it would run, the form of its file, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GPU = {"framework_name": "H100", "name": "NVIDIA H100", "uuid": "GPU-1", "driver_version": "580.1"}
CPU = {"model": "EPYC", "usable_cpus": 16}


def answer(framework: str, **changes: Any) -> dict[str, Any]:
    """As ``measure`` prints it, of one recipe."""
    result = {
        "framework": framework,
        "framework_version": "1",
        "recipe": "lenet",
        "ours_epoch_s": 0.1,
        "published_epoch_s": 6.0,
        "ratio": 60.0,
        "ratio_range": [55.0, 62.0],
    }
    content = {
        "format": "mnist-jobs bench-gpu 2",
        "version": "1",
        "git_sha": "abc",
        "date_utc": "2026-01-01",
        "gpu": GPU,
        "cpu": CPU,
    }
    return content | {"results": [result]} | changes


def combine(folder: Path, *answers: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    paths = []
    for index, one in enumerate(answers):
        paths.append(folder / f"{index}.json")
        paths[-1].write_text(json.dumps(one))
    command: list[str | Path] = [sys.executable, ROOT / "scripts/bench_gpu.py", "combine", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_combined_answers_are_one_file_with_goals(tmp_path: Path) -> None:
    slow = answer("torch")
    slow["results"][0] |= {"ratio": 49.0}
    # TensorFlow's name of the GPU is another one; its UUID is the same.
    done = combine(tmp_path, answer("tensorflow", gpu=GPU | {"framework_name": "another name"}), slow)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["gpu"]["name"] == "NVIDIA H100"
    assert content["cpu"] == CPU
    assert [(one["framework"], one["goal_ratio"], one["goal_met"]) for one in content["results"]] == [
        ("tensorflow", 50.0, True),
        ("torch", 50.0, False),
    ]
    assert "lenet, torch 1: the post's program 6.00 s an epoch, ours 0.100 s, ratio 49.0 (55.0 to 62.0)" in done.stderr
    assert "goal 50: not met" in done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu": GPU | {"uuid": "GPU-2"}},
        {"cpu": CPU | {"usable_cpus": 8}},
        {"version": "2"},
        {"git_sha": "def"},
    ],
)
def test_combine_answers_of_different_machines_or_versions_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    done = combine(tmp_path, answer("tensorflow"), answer("torch", **changes))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"its {next(iter(changes))} is " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ['{"format": "mnist-jobs bench-gpu 1"}', "{}", "[]", "{"])
def test_combine_a_file_of_another_format_is_refused(text: str, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)
    command: list[str | Path] = [sys.executable, ROOT / "scripts/bench_gpu.py", "combine", other]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {other} ")
    assert done.stderr.endswith("run `make bench-gpu` again\n")
    assert done.stderr.count("\n") == 1


def _make(
    tmp_path: Path, docker: str, platform: str = "linux/amd64"
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """``make bench-gpu`` in a copy of the Makefile's folder, with ``docker`` in Docker's place; and its calls."""
    for name in ("Makefile", "docker", "scripts", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = tmp_path / "docker-stand-in"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{docker}\n')
    program.chmod(0o755)
    command = ["make", "bench-gpu", f"DOCKER={program}", "BENCH_ARGS=--pairs 2", f"PLATFORM={platform}"]
    # A job in the background of a shell ignores Ctrl-C, and so would all that it starts.
    heeds_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=heeds_ctrl_c, capture_output=True, text=True, check=False)
    return done, (tmp_path / "calls").read_text().splitlines()


def _images(calls: list[str]) -> list[str]:
    return [re.findall(r"--entrypoint python (?:--gpus all |--volume \S+ )?(\S+)", call)[0] for call in calls]


def test_make_bench_gpu_runs_both_images_and_then_combines(tmp_path: Path) -> None:
    done, calls = _make(tmp_path, "echo '{}'")
    assert done.returncode == 0, done.stderr
    assert _images(calls[:2]) == ["mnist-tf", "mnist-torch"]
    for call in calls[:2]:
        assert "--gpus all" in call
        assert "--network none" in call
        assert call.endswith("/opt/scripts/bench_gpu.py measure --pairs 2")
    assert calls[2].endswith("combine /answers/mnist-tf.json /answers/mnist-torch.json")
    assert (tmp_path / "build/bench-gpu.json").read_text() == "{}\n"


def test_make_bench_gpu_without_a_gpu_fails_and_keeps_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/bench-gpu.json").write_text("earlier")
    done, calls = _make(tmp_path, "echo 'no GPU' >&2; exit 3")
    assert done.returncode != 0
    assert _images(calls) == ["mnist-tf", "mnist-torch"]
    assert "error: not measured: mnist-tf mnist-torch; the lines above say why\n" in done.stderr
    assert (tmp_path / "build/bench-gpu.json").read_text() == "earlier"


def test_make_bench_gpu_interrupted_measures_no_further_image(tmp_path: Path) -> None:
    done, calls = _make(tmp_path, "kill -INT $PPID; exit 130")
    assert done.returncode != 0
    assert _images(calls) == ["mnist-tf"]


def test_make_bench_gpu_on_arm64_runs_the_image_that_exists_there(tmp_path: Path) -> None:
    done, calls = _make(tmp_path, "echo '{}'", platform="linux/arm64")
    assert done.returncode == 0, done.stderr
    assert _images(calls) == ["mnist-torch", "mnist-torch"]
    assert calls[1].endswith("combine /answers/mnist-torch.json")


@pytest.mark.parametrize(("failing", "other"), [("mnist-tf", "mnist-torch"), ("mnist-torch", "mnist-tf")])
def test_make_bench_gpu_an_image_that_fails_is_named_and_the_other_measured(
    failing: str, other: str, tmp_path: Path
) -> None:
    """The failing image's answer of an earlier time is not used."""
    earlier = tmp_path / f"build/bench-gpu/{failing}.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    done, calls = _make(tmp_path, f'case "$*" in *" {failing} "*) exit 3 ;; esac; echo "{{}}"')
    assert done.returncode != 0
    assert _images(calls) == ["mnist-tf", "mnist-torch", other]
    assert calls[2].endswith(f"combine /answers/{other}.json")
    assert (tmp_path / "build/bench-gpu.json").read_text() == "{}\n"
    assert f"error: not measured: {failing}; the lines above say why\n" in done.stderr
