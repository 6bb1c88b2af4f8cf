"""A container's turn, as a pod runs it: in a process of its own, with programs that print their words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.duel.order import order_in_block
from jobs.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
PLAN = "plan-1"
PROGRAM = {"tensorflow": "mnist-tf", "torch": "mnist-torch"}


def take_turn(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    for name in PROGRAM.values():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\nexit 4\n')
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.duel.turn", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("block", range(4))
def test_turns_of_a_pod_run_each_framework_once_in_the_drawn_order(block: int, tmp_path: Path) -> None:
    ran = []
    for turn, program in (("first", "mnist-torch"), ("either", "mnist-tf"), ("second", "mnist-torch")):
        words = ("--turn", turn, "--plan", PLAN, "--block", str(block))
        done = take_turn(tmp_path, *words, "--", program, "train", "--seed", str(block))
        if done.returncode == 0:
            assert done.stdout == f"block {block}: torch runs in the other turn, nothing to do here\n"
        else:
            # The program's own exit code, which the Job's failure policy reads.
            assert done.returncode == ExitCode.BELOW_REFERENCE
            ran.append(done.stdout)
    assert ran == [
        f"{PROGRAM[framework]} train --seed {block} --design {PLAN}:{block}:{position}\n"
        for position, framework in enumerate(order_in_block(PLAN, block))
    ]


def test_turns_of_four_blocks_have_both_orders() -> None:
    assert len({order_in_block(PLAN, block) for block in range(4)}) == 2


def test_turn_of_another_program_is_bad_input(tmp_path: Path) -> None:
    done = take_turn(tmp_path, "--turn", "first", "--plan", PLAN, "--block", "0", "--", "sh", "-c", "true")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "'sh' is neither mnist-tf nor mnist-torch" in done.stderr
