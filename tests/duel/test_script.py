"""The duel as a user runs it: a process of its own, which is killed, terminated and started again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from jobs.exit_codes import ExitCode
from tests.duel.plans import drawn, outcomes, places, plan_in, reports_in
from tests.support.programs import error_line

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Duel = Callable[..., subprocess.CompletedProcess[str]]


def test_duel_runs_whole_blocks_in_the_drawn_order_and_merges(duel: Duel, tmp_path: Path) -> None:
    arguments = ("plan", "--blocks", "3", "--seed", "5", "--", "--epochs", "2")
    done = duel(*arguments, MNIST_JOBS_CHECKPOINT_DIR="here")
    assert done.returncode == 0, done.stderr
    plan = plan_in(tmp_path / "plan")
    assert places(tmp_path / "plan") == drawn(tmp_path / "plan", 0, 1, 2)
    assert [(run["block"], run["position"], run["framework"]) for run in plan["runs"]] == places(tmp_path / "plan")
    configs = [report.config for report in reports_in(tmp_path / "plan")]
    assert {config.design.plan_id for config in configs if config.design} == {plan["plan_id"]}
    # Both runs of a block train with one seed, and each block with its own.
    assert {(config.seed, config.design.block) for config in configs if config.design} == {(5, 0), (6, 1), (7, 2)}
    assert "torch / tensorflow is 1.2" in " ".join(done.stdout.split())
    assert (tmp_path / "plan/comparison/comparison.html").exists()


def test_duel_killed_with_its_run_goes_on_with_another_block(duel: Duel, tmp_path: Path) -> None:
    killed = duel("plan", "--blocks", "3", actions={"1:1": "kill-duel,kill"})
    assert killed.returncode == -9
    assert outcomes(tmp_path / "plan") == ["completed"] * 3 + ["started"]
    done = duel("plan", "--blocks", "3")
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path / "plan") == ["completed"] * 3 + ["lost"] + ["completed"] * 4
    # What the lost block measured is kept.
    assert places(tmp_path / "plan") == [*drawn(tmp_path / "plan", 0, 1)[:3], *drawn(tmp_path / "plan", 2, 3)]
    assert "block 1 is lost: " in done.stderr
    assert "ended while the duel was not there, without a report" in done.stderr


def test_duel_killed_alone_waits_for_the_run_it_left_behind(
    duel: Duel, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The run goes on until the pipe is opened.
    assert duel("plan", "--blocks", "1", actions={"0:1": f"kill-duel,wait={fifo}"}).returncode == -9
    with start("plan", "--blocks", "1") as resumed:
        assert resumed.stderr is not None
        assert "a run that an earlier duel started here is not done yet: waiting for it" in resumed.stderr.readline()
        # Nobody else may begin meanwhile.
        refused = duel("plan", "--blocks", "1")
        assert refused.returncode == ExitCode.BAD_INPUT
        assert "another duel works in 'plan'" in error_line(refused)
        fifo.write_bytes(b"go")
        resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    # Its report counts, since nothing else ran beside it.
    assert places(tmp_path / "plan") == drawn(tmp_path / "plan", 0)
    assert outcomes(tmp_path / "plan") == ["completed", "completed"]


def test_duel_terminated_ends_after_its_run_with_the_signals_code(duel: Duel, tmp_path: Path) -> None:
    done = duel("plan", "--blocks", "2", actions={"0:0": "terminate-duel"})
    assert done.returncode == ExitCode.INTERRUPTED
    assert "give the same command again to go on" in done.stderr
    assert outcomes(tmp_path / "plan") == ["lost"]


def test_duel_terminated_after_its_last_block_says_so(duel: Duel, tmp_path: Path) -> None:
    done = duel("plan", "--blocks", "1", actions={"0:1": "terminate-duel-and-finish"})
    assert done.returncode == ExitCode.INTERRUPTED
    assert "stopped after the last block; give the same command again for the verdict" in done.stderr
    assert outcomes(tmp_path / "plan") == ["completed"] * 2
    assert duel("plan", "--blocks", "1").returncode == 0


def test_duel_of_another_plan_in_the_folder_is_refused(duel: Duel, tmp_path: Path) -> None:
    assert duel("plan", "--blocks", "1", actions={"0:0": "kill-duel"}).returncode == -9
    before = (tmp_path / "plan/plan.json").read_bytes()
    done = duel("plan", "--blocks", "2", "--", "--epochs", "3")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "holds another plan" in error_line(done)
    assert "blocks is 1 there and 2 here; train_options is [] there and ['--epochs', '3'] here" in error_line(done)
    assert (tmp_path / "plan/plan.json").read_bytes() == before


def test_duel_failure_that_another_run_would_have_too_ends_it(duel: Duel, tmp_path: Path) -> None:
    done = duel("plan", "--blocks", "2", actions={"0:0": "exit=5"})
    assert done.returncode == ExitCode.DATASET_REFUSED
    assert "ended with code 5: cannot go on, code 5 (all of it: 'plan/logs/block-000-0-" in error_line(done)
    assert outcomes(tmp_path / "plan") == ["lost"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--blocks", "0"], "--blocks 0 is not between 1 and 1000"),
        (["--half-width", "nan"], "--half-width nan is not between 0.1 and 50 percent"),
        (["--gpu", "0,1"], "--gpu '0,1' is not one GPU"),
    ],
)
def test_duel_bad_options_are_refused_before_a_run(arguments: list[str], text: str, duel: Duel, tmp_path: Path) -> None:
    done = duel("plan", *arguments)
    assert done.returncode == ExitCode.BAD_INPUT
    assert text in error_line(done)
    assert not (tmp_path / "plan").exists()
