"""The GitHub workflow runs the make targets that people run, with actions pinned by commit."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
WORKFLOW: dict[str, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_runs_the_make_targets() -> None:
    makefiles = (ROOT / "Makefile").read_text("utf-8") + (ROOT / "docker" / "images.mk").read_text("utf-8")
    targets = [found[1] for step in STEPS if (found := re.fullmatch(r"make ([a-z-]+)", step.get("run", "")))]
    assert {"check", "test", "test-mnist", "test-images"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}( [^=]*)?:", makefiles, re.MULTILINE), target


def test_it_runs_what_ci_run_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    ours = [line.strip() for line in lines if line.strip().startswith("make ")]
    assert ours == ["make check", "make test", "make test-mnist"]
    assert set(ours) <= {step.get("run") for step in STEPS}


def test_make_test_is_what_runs_without_mnist() -> None:
    planned = _make("test", "--dry-run", MNIST_DATA_DIR=str(ROOT))
    commands = [line for line in planned.stdout.splitlines() if "pytest" in line]
    assert len(commands) == 3
    assert all(line.startswith("env -u MNIST_DATA_DIR .venv") for line in commands)
    assert "-m 'not docker and not mnist'" in commands[0]


@pytest.mark.parametrize("value", ["", "/nonexistent", str(ROOT / "Makefile")])
def test_make_test_mnist_says_what_it_wants_before_anything_else(value: str) -> None:
    done = _make("test-mnist", MNIST_DATA_DIR=value)
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first == f"MNIST_DATA_DIR='{value}' names no folder: set it to the one that holds MNIST's four files"
    assert all(line.startswith("make") for line in rest)
    assert "pytest" not in done.stdout


def _make(target: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # An outer make would pass its own options on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", target, *options],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", TEXT, re.MULTILINE), action


def test_it_may_only_read_and_always_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in WORKFLOW["jobs"].values())
