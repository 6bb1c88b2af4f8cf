"""A plan's runs, in this process; the programs are processes that write reports without training."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from jobs.duel.command import check_settings
from jobs.duel.order import order_in_block
from jobs.duel.plan import Settings, open_plan
from jobs.duel.run import MAX_LOST_RUNS, Duel
from jobs.errors import BadInput, JobError
from tests.duel.plans import drawn, outcomes, places, plan_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., list[str]]


@pytest.fixture
def run(programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(blocks=2)`` runs a plan and returns what was said; ``actions`` says what happens by ``block:position``."""

    def run_plan(actions: dict[str, str] | None = None, **settings: Any) -> list[str]:
        monkeypatch.setenv("DUEL_TEST", json.dumps(actions or {}))
        said: list[str] = []
        with open_plan(tmp_path / "plan", settings_of(programs, **settings), said.append) as place:
            Duel(place, said.append).run()
        return said

    return run_plan


def settings_of(programs: dict[str, str], **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "seed": 1,
        "blocks": 2,
        "half_width_percent": None,
        "runner": "program",
        "targets": programs,
        "gpu": None,
        "train_options": [],
    }
    return Settings.model_validate(values | changes)


def test_lost_blocks_are_recorded_and_replaced_by_others(run: Run, tmp_path: Path) -> None:
    run({"0:1": "kill", "1:0": "below", "3:0": "kill"})
    lost = {one["block"]: one["reason"] for one in plan_in(tmp_path / "plan")["runs"] if one["outcome"] == "lost"}
    killed = "killed by SIGKILL, without a report"
    assert lost == {0: killed, 1: "below_reference: too low", 3: killed}
    # The second run of a block is left out if its first is lost.
    firsts = [place for place in drawn(tmp_path / "plan", 0, 1) if place[1] == 0]
    assert places(tmp_path / "plan") == [*firsts, *drawn(tmp_path / "plan", 2, 4)]


def test_narrow_interval_stops_before_the_last_block(run: Run, tmp_path: Path) -> None:
    # The programs' speeds differ by a fixed factor.
    assert "8 blocks are enough for an interval of about ±1 %" in run(blocks=20, half_width_percent=1.0)
    assert outcomes(tmp_path / "plan") == ["completed"] * 16


def test_too_many_lost_runs_end_it_until_it_is_started_again(run: Run, tmp_path: Path) -> None:
    actions = {f"{block}:0": "exit=9" for block in range(MAX_LOST_RUNS + 3)}
    with pytest.raises(JobError, match=r"6 runs were lost, the last in block 5: \w+ ended with code 9: cannot go on"):
        run(actions)
    run(actions)
    assert outcomes(tmp_path / "plan") == ["lost"] * 8 + ["completed"] * 4


def test_block_that_was_stopped_between_its_runs_is_lost(run: Run, tmp_path: Path) -> None:
    run(blocks=2)
    path = tmp_path / "plan/plan.json"
    plan = plan_in(tmp_path / "plan")
    plan["runs"].pop()
    path.write_text(json.dumps(plan))
    assert "block 1 is lost: the duel was stopped between its runs" in run(blocks=2)
    assert places(tmp_path / "plan") == drawn(tmp_path / "plan", 0, 1, 2)


def test_damaged_report_is_a_lost_run_and_its_block_is_replaced(run: Run, tmp_path: Path) -> None:
    run({"0:1": "damage"})
    assert outcomes(tmp_path / "plan") == ["completed", "lost"] + ["completed"] * 4
    # It is the same for a run that an earlier process did not see the end of.
    plan = plan_in(tmp_path / "plan")
    plan["runs"][-1] |= {"outcome": "started", "steady_images_per_s": None}
    (tmp_path / "plan/plan.json").write_text(json.dumps(plan))
    last = max((tmp_path / "plan/reports").glob("block-002-1-*/*.json"))
    last.write_bytes(last.read_bytes()[:100])
    run()
    assert outcomes(tmp_path / "plan") == ["completed", "lost"] + ["completed"] * 3 + ["lost"] + ["completed"] * 2
    reasons = [one["reason"] for one in plan_in(tmp_path / "plan")["runs"] if one["outcome"] == "lost"]
    assert all(reason.startswith("its report cannot be read: ") and "not valid JSON" in reason for reason in reasons)


def test_program_of_the_other_framework_is_refused(run: Run, programs: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="trains with torch, not tensorflow; begin in another folder"):
        run(targets=dict.fromkeys(programs, programs["torch"]))


def test_program_that_cannot_be_started_ends_it(run: Run, programs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").touch(0o755)
    with pytest.raises(BadInput, match=r"empty' cannot be started \(Exec format error\)"):
        run(targets=dict.fromkeys(programs, str(tmp_path / "empty")))
    # What went before stays known.
    assert outcomes(tmp_path / "plan") == ["started"]


def test_docker_runs_the_images_on_one_gpu(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for docker writes down its words and starts the program that stands for the image."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin/docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/words\n[ "$1" = wait ] && exit\n'
        f'while [ "$1" != train ]; do case "$1" in *:/reports) out="${{1%:/reports}}";; mnist-tf) '
        f'p=tensorflow;; mnist-torch) p=torch;; esac; shift; done\nexec {tmp_path}/$p "$@" --report-dir "$out"\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}{os.pathsep}{os.environ['PATH']}")
    images = {"tensorflow": "mnist-tf", "torch": "mnist-torch"}
    settings = {"blocks": 1, "runner": "docker", "targets": images, "gpu": "GPU-1", "train_options": ["--epochs", "2"]}
    run(**settings)
    plan = plan_in(tmp_path / "plan")
    first = order_in_block(plan["plan_id"], 0)[0]
    words = (tmp_path / "words").read_text().splitlines()
    assert words[0] == (
        f"run --rm --name mnist-{plan['plan_id']}-0-0 --network none --gpus device=GPU-1 "
        f"--user {os.getuid()}:{os.getgid()} --volume {tmp_path}/plan/reports/block-000-0-{first}:/reports "
        f"{images[first]} train --epochs 2 --device gpu --seed 1 --design {plan['plan_id']}:0:0"
    )
    assert len(words) == 2
    # A container whose duel was killed is waited for.
    plan["runs"][-1]["outcome"] = "started"
    (tmp_path / "plan/plan.json").write_text(json.dumps(plan))
    run(**settings)
    assert (tmp_path / "words").read_text().splitlines()[2:] == [f"wait mnist-{plan['plan_id']}-0-1"]
    assert outcomes(tmp_path / "plan") == ["completed", "completed"]


@pytest.mark.parametrize("content", ["", "{", '{"plan_id": "x"}', '{"format": 2}', "[]", "\udcff"])
def test_damaged_plan_is_refused_and_kept(content: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/plan.json").write_bytes(os.fsencode(content))
    with pytest.raises(BadInput, match=r"plan\.json' cannot be read as the plan of a duel of this release"):
        run()
    assert (tmp_path / "plan/plan.json").read_bytes() == os.fsencode(content)


def test_reports_without_a_plan_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan/reports").mkdir(parents=True)
    (tmp_path / "plan/reports/x.json").write_text("{}")
    with pytest.raises(BadInput, match="has reports that are of no plan"):
        run()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train_options": ["--seed", "3"]}, "--seed after the -- is not possible: give it before the --"),
        ({"train_options": ["--device=gpu"]}, "--device after the -- is not possible: use --gpu"),
        ({"train_options": ["--checkpoint-dir", "x"]}, "--checkpoint-dir after the -- is not possible: the plan sets"),
        ({"targets": {"tensorflow": "/nowhere", "torch": "/nowhere"}}, "'/nowhere' is no program to run tensorflow"),
        ({"targets": {"tensorflow": "/", "torch": "/"}}, "'/' is no program to run tensorflow"),
    ],
)
def test_check_settings_what_cannot_run_is_refused(changes: Any, text: str, programs: dict[str, str]) -> None:
    check_settings(settings_of(programs))
    with pytest.raises(BadInput, match=text):
        check_settings(settings_of(programs, **changes))


def test_check_settings_docker_without_docker_is_refused(
    programs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="--docker needs the program docker"):
        check_settings(settings_of(programs, runner="docker"))
