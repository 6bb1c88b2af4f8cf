"""Runs a training command in its turn within a block, in a pod whose containers run one after the other.

A pod's containers are fixed, but the order within a block is drawn. So one image has two containers, before and after
the other's. In each block one of the two has nothing to do. In each container:
``python -m jobs.duel.turn --turn first --plan PLAN --block N -- mnist-torch train …``.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from jobs.duel.order import order_in_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.choices import FrameworkName

FRAMEWORK_OF: Final[dict[str, FrameworkName]] = {"mnist-tf": "tensorflow", "mnist-torch": "torch"}
"""By program: the side that it runs."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.duel.turn", description=__doc__.splitlines()[0])
    parser.add_argument("--plan", required=True, help="the plan's id, from which the order is drawn too")
    parser.add_argument("--block", required=True, type=int, metavar="N", help="the block's number, from 0")
    parser.add_argument("--turn", required=True, choices=["first", "either", "second"], help="this container's turn")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="mnist-tf or mnist-torch with train and options")
    given = parser.parse_args(arguments)
    program, *rest = given.command
    if program not in FRAMEWORK_OF:
        parser.error(f"{program!r} is neither mnist-tf nor mnist-torch; give the command after --")
    framework = FRAMEWORK_OF[program]
    position = order_in_block(given.plan, given.block).index(framework)
    if given.turn != "either" and position != ["first", "second"].index(given.turn):
        print(f"block {given.block}: {framework} runs in the other turn, nothing to do here", flush=True)  # noqa: T201
        return
    # The program takes this one's place, so it receives the signals.
    os.execvp(program, [program, *rest, "--design", f"{given.plan}:{given.block}:{position}"])  # noqa: S606


if __name__ == "__main__":
    main()
