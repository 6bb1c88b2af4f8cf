"""Run both frameworks in randomised blocks on one GPU or CPU, and print the verdict."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the slow imports below. It imports this file once more, under another name.
    from jobs.cli.start import run_script

    run_script(__file__)

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from jobs.duel.command import check_settings
from jobs.duel.plan import REPORTS, Settings, open_plan
from jobs.duel.run import Duel
from jobs.errors import BadInput, JobError
from jobs.io.stdio import escape_control_chars

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"tensorflow": ROOT / ".venv-tf/bin/mnist-tf", "torch": ROOT / ".venv-torch/bin/mnist-torch"}
IMAGES = {"tensorflow": "mnist-tf", "torch": "mnist-torch"}


def duel(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The plan's folder; the same command goes on where it stopped.")
    ],
    train_options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTION...", help="Options of train, for all runs.")
    ] = None,
    tensorflow: Annotated[
        str | None,
        typer.Option("--tf", metavar="PROGRAM", help="A mnist-tf, or its image. [default: that of make envs]"),
    ] = None,
    torch: Annotated[
        str | None, typer.Option(metavar="PROGRAM", help="A mnist-torch, or its image. [default: that of make envs]")
    ] = None,
    docker: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--docker", help="Run the images mnist-tf and mnist-torch, or those named.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(metavar="GPU", help="UUID or index of the one GPU to use. [default: the CPU]")
    ] = None,
    blocks: Annotated[int, typer.Option(metavar="N", help="Blocks to complete, of one run of each framework.")] = 10,
    half_width: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Stop earlier, once the ratio's interval is about ±PERCENT or less."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The training seed of block 0; each block has the next.")] = 1,
) -> None:
    """Run both frameworks in randomised blocks on one GPU or CPU, and print the verdict.

    A block is one run of each framework, one directly after the other, in an order that is drawn. A block in
    which a run failed or was killed is recorded and replaced by another. The plan, the reports, the runs' messages and
    the comparison are in FOLDER. If the duel is interrupted or killed, give the same command again.
    """
    try:
        _run(folder, _settings(tensorflow, torch, docker, gpu, blocks, half_width, seed, train_options or []))
    except JobError as error:
        with suppress(OSError):
            typer.echo(f"error: {escape_control_chars(str(error))}", err=True)
        raise typer.Exit(error.exit_code) from error


def _settings(
    tensorflow: str | None,
    torch: str | None,
    docker: bool,  # noqa: FBT001 - an option as it was given
    gpu: str | None,
    blocks: int,
    half_width: float | None,
    seed: int,
    train_options: list[str],
) -> Settings:
    if not 1 <= blocks <= 1000:
        raise BadInput(f"--blocks {blocks} is not between 1 and 1000")
    if half_width is not None and not 0.1 <= half_width <= 50:
        raise BadInput(f"--half-width {half_width:g} is not between 0.1 and 50 percent")
    if not 0 <= seed <= 1_000_000_000:
        raise BadInput(f"--seed {seed} is not between 0 and 1000000000")
    if gpu is not None and (not gpu or "," in gpu):
        raise BadInput(f"--gpu {gpu!r} is not one GPU: give the UUID or the index that nvidia-smi -L lists")
    given = {"tensorflow": tensorflow, "torch": torch}
    default = IMAGES if docker else PROGRAMS
    targets = {name: str(default[name] if target is None else target) for name, target in given.items()}
    settings = Settings.model_validate(
        {
            "seed": seed,
            "blocks": blocks,
            "half_width_percent": half_width,
            "runner": "docker" if docker else "program",
            "targets": targets if docker else {name: _absolute(path) for name, path in targets.items()},
            "gpu": gpu,
            "train_options": train_options,
        }
    )
    check_settings(settings)
    return settings


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)  # noqa: PTH100
    except FileNotFoundError as error:
        raise BadInput(
            f"{path!r}: the working folder was removed; give absolute paths, or change the folder"
        ) from error


def _run(folder: Path, settings: Settings) -> None:
    with open_plan(folder, settings, _say) as place:
        running = Duel(place, _say)
        stopped_by = running.run()
        is_done = stopped_by is not None and running.is_done()
        complete, lost = len(place.plan.log_ratios()), len(place.plan.lost_runs)
    _say(f"plan {place.plan.plan_id}: {complete} blocks are complete, lost runs: {lost}")
    if stopped_by is not None:
        when = "after the last block; give the same command again for the verdict"
        _say(f"stopped {when if is_done else 'before the end; give the same command again to go on'}")
        raise typer.Exit(128 + stopped_by)
    script, output = ROOT / "scripts/merge_reports.py", folder / "comparison"
    merge: list[str | Path] = [sys.executable, script, folder / REPORTS, "-o", output]
    code = subprocess.run(merge, check=False).returncode
    if code:
        raise typer.Exit(code)


def _say(text: str) -> None:
    with suppress(OSError):
        typer.echo(escape_control_chars(text), err=True)


def main() -> None:
    """Run the command line and leave with its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(duel)
    app()
