"""The GitHub workflow runs the make targets that people run, with actions pinned by commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
WORKFLOW: dict[str, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_runs_the_make_targets() -> None:
    makefiles = (ROOT / "Makefile").read_text("utf-8") + (ROOT / "docker" / "images.mk").read_text("utf-8")
    targets = [found[1] for step in STEPS if (found := re.fullmatch(r"make ([a-z-]+)", step.get("run", "")))]
    assert {"check", "test", "test-images"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}( [^=]*)?:", makefiles, re.MULTILINE), target


def test_it_runs_what_ci_run_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    ours = {line for line in lines if line.startswith("make ")}
    assert ours
    assert ours <= {step.get("run") for step in STEPS}


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", TEXT, re.MULTILINE), action


def test_it_may_only_read_and_always_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in WORKFLOW["jobs"].values())
