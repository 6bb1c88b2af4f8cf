"""The commands and options of ``mnist-tf`` and ``mnist-torch``, the same in both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs import __version__
from jobs.errors import FrameworkMissing
from jobs.exit_codes import ExitCode
from jobs.io.stdio import escape_control_chars
from jobs.training.options import (
    DatasetOption,
    DeviceOption,
    PrecisionOption,
    ReportDirOption,
    TimeLimitOption,
    TrainRequest,
    train_signature,
)
from jobs.training.termination_message import PATH_VARIABLE, note_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobs.adapter import Framework
    from jobs.choices import FrameworkName


@dataclass(frozen=True, kw_only=True)
class Program:
    """The differences between the two console scripts."""

    name: Literal["mnist-tf", "mnist-torch"]
    framework: FrameworkName
    title: str
    extra: str
    load: Callable[[], Framework]
    compile_cache: Callable[[Path], Mapping[str, str]]
    """The environment variables that set the folder of the framework's compile cache."""

    def load_framework(self) -> Framework:
        """Import the framework, which takes seconds, when it is needed.

        Raises:
            FrameworkMissing: it is not installed in this environment.
        """
        try:
            return self.load()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "jobs":
                raise
            raise FrameworkMissing(
                f"{self.name} needs {self.title}, but {error.name!r} is not installed in this environment; "
                f"run .venv-{self.extra}/bin/{self.name} of `make envs`, install mnist-jobs[{self.extra}], "
                f"or run the image {self.name}"
            ) from error

    def use_compile_cache(self, folder: Path) -> None:
        """Store what the framework compiles in ``folder``. Must be called before the framework is loaded.

        Raises:
            NotWritable: the folder cannot be made or written to.
        """
        from jobs.io.atomic_file import check_writable  # noqa: PLC0415 - help and usage errors come at once

        check_writable(folder, kind="compile cache", option="--compile-cache")
        os.environ.update(self.compile_cache(folder.resolve()))


def _show_version(context: typer.Context, asked: bool) -> None:  # noqa: FBT001 - the signature is Typer's
    if asked:
        typer.echo(f"{context.info_name} {__version__}")
        raise typer.Exit


def build_app(program: Program) -> typer.Typer:
    """The program's commands; importing and showing help needs no framework."""
    app = typer.Typer(
        name=program.name,
        help=f"Train, evaluate and report digit classifiers with {program.title}.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    # The commands import what they need inside, so that help and usage errors are fast.

    @app.callback(invoke_without_command=True)
    def common(
        context: typer.Context,
        version: Annotated[  # noqa: ARG001, FBT002 - a flag with a callback
            bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help(), err=True)
            raise typer.Exit(ExitCode.BAD_INPUT)

    def train(context: typer.Context, **options: Any) -> None:
        """Train, evaluate after every epoch, and write one report per run."""
        raise typer.Exit(_train(program, TrainRequest(**options), context.obj))

    train.__signature__ = train_signature()  # type: ignore[attr-defined]
    app.command()(train)

    @app.command()
    def evaluate(
        weights: Annotated[
            Path, typer.Argument(metavar="FILE", readable=False, help="A file that train --export-dir wrote.")
        ],
        dataset: DatasetOption = "mnist",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "fp32",
    ) -> None:
        """Evaluate trained weights, of either framework, on all test images."""
        from jobs.cli.evaluate import evaluate_file  # noqa: PLC0415

        evaluation = evaluate_file(weights, program.load_framework, dataset=dataset, device=device, precision=precision)
        typer.echo(
            f"test loss {evaluation.loss:.6f}  test accuracy {evaluation.accuracy_ratio:.4f}  "
            f"({evaluation.correct} of {evaluation.examples})"
        )

    @app.command()
    def doctor(
        dataset: DatasetOption = "mnist",
        device: DeviceOption = "auto",
        report_dir: ReportDirOption = Path("reports"),
        time_limit: TimeLimitOption = 60,
    ) -> None:
        """Check driver, NVML, framework, device, dataset and report folder: each line ok or what to do.

        With --device gpu it also uses the GPU, for about a minute; a bug report needs those lines.
        """
        from jobs.cli.doctor import examine  # noqa: PLC0415

        exit_code = ExitCode.DONE
        findings = examine(
            program.load_framework, device=device, dataset=dataset, report_dir=report_dir, time_limit_s=time_limit
        )
        for finding in findings:
            typer.echo(escape_control_chars(f"{finding.status:5} {finding.subject}: {finding.text}"))
            if finding.exit_code:
                note_error(f"{finding.subject}: {finding.text}")
            exit_code = exit_code or finding.exit_code
        raise typer.Exit(exit_code)

    @app.command()
    def dataset(dataset: DatasetOption = "mnist") -> None:
        """Download the data if necessary, verify it, and print its hashes."""
        _print_dataset(dataset)

    return app


def _train(program: Program, request: TrainRequest, arguments: Sequence[str]) -> int:
    """Train as one rank if something has started this process as one; else start the ranks, if there are several."""
    from jobs.ranks.launcher import launch, rank_command  # noqa: PLC0415
    from jobs.ranks.place import find_place  # noqa: PLC0415
    from jobs.training.console import Console  # noqa: PLC0415
    from jobs.training.request import check_request, resolve_ranks  # noqa: PLC0415
    from jobs.training.run import run_trials  # noqa: PLC0415

    place = find_place(os.environ, framework=program.framework, ranks=request.ranks, service=request.ranks_service)
    if place is None and request.ranks > 1:
        check_request(resolve_ranks(request, None))
        # Rank 0 writes the termination message, and neither the others nor this process.
        message = {name: os.environ.pop(name) for name in (PATH_VARIABLE,) if name in os.environ}
        command = rank_command(program.name, arguments)
        return launch(command, framework=program.framework, ranks=request.ranks, of_first=message)
    if request.compile_cache is not None:
        program.use_compile_cache(request.compile_cache)
    console = Console(quiet=place is not None and place.rank > 0)
    return run_trials(request, program.framework, program.load_framework, console, place)


def _print_dataset(name: str) -> None:
    import numpy as np  # noqa: PLC0415

    from jobs.datasets import load  # noqa: PLC0415

    data = load(name)
    typer.echo(escape_control_chars(f"{data.name}  sha256 {data.sha256}  {data.location}"))
    for file in data.files:
        typer.echo(f"{file.sha256}  {file.content_bytes:>10} bytes  {file.name}")
    for split, labels in (("train", data.train_labels), ("test ", data.test_labels)):
        by_digit = " ".join(str(count) for count in np.bincount(labels, minlength=10))
        typer.echo(f"{split} {len(labels)}, by digit {by_digit}")
