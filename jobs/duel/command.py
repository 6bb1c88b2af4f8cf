"""The command of one run: a framework's program on this machine, or its image in Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobs.duel.plan import Plan, RunRecord, Settings

SET_BY_THE_PLAN: Final = frozenset(
    {"--device", "--seed", "--trials", "--report-dir", "--design", "--checkpoint-dir", "--checkpoint-steps"}
)
"""Options of ``train`` that the plan sets, or that would let one run go on from another."""

NOT_PASSED_ON: Final = ("MNIST_JOBS_CHECKPOINT_DIR", "MNIST_JOBS_REPORT_DIR")


def check_settings(settings: Settings) -> None:
    """Check before the first run that the programs are there and the options are the user's to give.

    Raises:
        BadInput: one is not; the message says which and what to do.
    """
    for option in settings.train_options:
        name = option.partition("=")[0]
        if name in SET_BY_THE_PLAN:
            instead = {"--device": "use --gpu, or leave it out for the CPU", "--seed": "give it before the --"}
            raise BadInput(f"{name} after the -- is not possible: {instead.get(name, 'the plan sets it for each run')}")
    if settings.runner == "docker":
        if shutil.which("docker") is None:
            raise BadInput("--docker needs the program docker, which is not found; install it, or run without --docker")
        return
    for framework, program in settings.targets.items():
        if not os.access(program, os.X_OK) or os.path.isdir(program):  # noqa: PTH112 - the path is text in the plan
            raise BadInput(f"{program!r} is no program to run {framework} with; create it by `make envs`, or name one")


def command_of(plan: Plan, run: RunRecord, report_dir: Path) -> tuple[list[str], dict[str, str]]:
    """The command of ``run`` and its environment variables."""
    settings = plan.settings
    target = settings.targets[run.framework]
    train = [
        *("train", *settings.train_options, "--device", "cpu" if settings.gpu is None else "gpu"),
        *("--seed", str(settings.seed + run.block), "--design", f"{plan.plan_id}:{run.block}:{run.position}"),
    ]
    variables = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    if settings.runner == "docker":
        gpus = [] if settings.gpu is None else ["--gpus", f"device={settings.gpu}"]
        start = ["docker", "run", "--rm", "--name", container_name(plan, run), "--network", "none", *gpus]
        user = ["--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{report_dir}:/reports"]
        return [*start, *user, target, *train], variables
    if settings.gpu is not None:
        variables |= {"CUDA_VISIBLE_DEVICES": settings.gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return [target, *train, "--report-dir", str(report_dir)], variables


def container_name(plan: Plan, run: RunRecord) -> str:
    return f"mnist-{plan.plan_id}-{run.block}-{run.position}"


def wait_for_container(plan: Plan, run: RunRecord) -> None:
    """Wait until the container of a run that nobody waits for any more has ended; at once if there is none."""
    waiting: Sequence[str] = ["docker", "wait", container_name(plan, run)]
    subprocess.run(waiting, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
