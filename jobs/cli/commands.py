"""The commands and options of ``mnist-tf`` and ``mnist-torch``, the same in both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs import __version__
from jobs.adapter import DeviceChoice, Execution, InputPath, Precision, TrainingProtocol
from jobs.errors import FrameworkMissing
from jobs.exit_codes import ExitCode
from jobs.io.stdio import escape_control_chars
from jobs.recipes import LENET, RECIPES
from jobs.telemetry.types import Mode as TelemetryMode  # noqa: TC001 - Typer reads it at run time
from jobs.training.termination_message import note_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobs.adapter import Framework

    RecipeName = str
else:
    # Typer reads the choices at run time; mypy cannot evaluate such a Literal.
    RecipeName = Literal[tuple(RECIPES)]


@dataclass(frozen=True, kw_only=True)
class Program:
    """The differences between the two console scripts."""

    name: Literal["mnist-tf", "mnist-torch"]
    framework: str
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


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is not a finite number above 0")
    return value


def _count(low: int, high: int, description: str, **options: Any) -> Any:
    """An option for a number in ``low``…``high``. The message of Typer's own min and max lacks the value."""

    def check(value: int | None) -> int | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not between {low} and {high}")
        return value

    return typer.Option(callback=check, help=description, **options)


def _path(metavar: str, description: str, variable: str | None = None) -> Any:
    """An option for a path; ``variable`` is its environment variable, without ``MNIST_JOBS_``."""
    envvar = variable and f"MNIST_JOBS_{variable}"
    # readable=False: the commands check the path themselves, with a clearer message.
    return typer.Option(metavar=metavar, readable=False, help=description, envvar=envvar)


def _show_version(context: typer.Context, asked: bool) -> None:  # noqa: FBT001 - the signature is Typer's
    if asked:
        typer.echo(f"{context.info_name} {__version__}")
        raise typer.Exit


# Options of several commands.
DatasetOption = Annotated[
    str, typer.Option(metavar="NAME|DIR", help="mnist, synthetic, or a folder of IDX files.", show_default=True)
]
DeviceOption = Annotated[
    DeviceChoice, typer.Option(help="gpu fails if none is usable; it never falls back to the CPU.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic; set in the framework and read back.")]
ReportDirOption = Annotated[Path, _path("DIR", "Where the reports go.", "REPORT_DIR")]


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

    @app.command()
    def train(
        recipe: Annotated[
            RecipeName, typer.Option(help="What is trained; each exists in both frameworks.")
        ] = LENET.name,
        protocol: Annotated[
            TrainingProtocol,
            typer.Option(help="matched: same weights, batches and arithmetic. published: as the post wrote it."),
        ] = "matched",
        epochs: Annotated[int | None, _count(0, 100_000, "Epochs. [default: the recipe's]")] = None,
        batch_size: Annotated[int | None, _count(1, 60_000, "Images per step. [default: the recipe's]")] = None,
        learning_rate: Annotated[
            float | None,
            typer.Option(callback=_positive, metavar="RATE", help="Learning rate. [default: the recipe's]"),
        ] = None,
        seed: Annotated[int | None, _count(0, 2**31 - 1, "Seed. [default: the recipe's]")] = None,
        dataset: DatasetOption = "mnist",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "fp32",
        execution: Annotated[
            Execution | None, typer.Option(help="How steps run. [default: the fastest for the device]")
        ] = None,
        input_path: Annotated[
            InputPath | None,
            typer.Option("--input", help="Where batches come from. [default: resident; published: streamed]"),
        ] = None,
        trials: Annotated[int, _count(1, 10_000, "Number of runs, with consecutive seeds.")] = 1,
        parity_steps: Annotated[
            int | None, _count(1, 100_000, "Also record a parity trace of this many steps; at least 8 below fp64.")
        ] = None,
        measure_peak: Annotated[
            bool | None,
            typer.Option(
                "--measure-peak/--no-measure-peak",
                help="Measure the device's fastest matrix product after training (1 to 2 s). [default: on a GPU only]",
            ),
        ] = None,
        report_dir: ReportDirOption = Path("reports"),
        export_dir: Annotated[Path | None, _path("DIR", "Also write the trained weights (safetensors) here.")] = None,
        checkpoint_dir: Annotated[
            Path | None,
            _path("DIR", "Keep checkpoints here, and resume from the last one if there is one.", "CHECKPOINT_DIR"),
        ] = None,
        checkpoint_steps: Annotated[
            int | None, _count(1, 1_000_000, "Also every N steps. [default: each epoch]", metavar="N")
        ] = None,
        compile_cache: Annotated[
            Path | None,
            _path("DIR", "Keep what --execution compiled compiles here, for the next run.", "COMPILE_CACHE"),
        ] = None,
        telemetry: Annotated[
            TelemetryMode, typer.Option(help="Where GPU and host are sampled: in a process or thread, or not at all.")
        ] = "process",
        sample_ms: Annotated[int, _count(10, 60_000, "Time between two GPU readings.", metavar="MS")] = 100,
        gpm_ms: Annotated[int, _count(100, 60_000, "The same for GPM's, Hopper and later.", metavar="MS")] = 200,
        slow_ms: Annotated[int, _count(100, 60_000, "The same for counters and the host.", metavar="MS")] = 1000,
        metrics_textfile: Annotated[
            Path | None, _path("FILE", "Also write the results here in Prometheus text format.")
        ] = None,
    ) -> None:
        """Train, evaluate after every epoch, and write one report per run."""
        from jobs.telemetry.types import Options  # noqa: PLC0415
        from jobs.training.console import Console  # noqa: PLC0415
        from jobs.training.run import TrainRequest, run_trials  # noqa: PLC0415

        request = TrainRequest(
            recipe=RECIPES[recipe],
            protocol=protocol,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            dataset=dataset,
            device=device,
            precision=precision,
            execution=execution,
            input=input_path,
            trials=trials,
            parity_steps=parity_steps,
            measure_peak=measure_peak,
            report_dir=report_dir,
            export_dir=export_dir,
            checkpoint_dir=checkpoint_dir,
            checkpoint_steps=checkpoint_steps,
            telemetry=Options(mode=telemetry, fast_s=sample_ms / 1000, gpm_s=gpm_ms / 1000, slow_s=slow_ms / 1000),
            metrics_textfile=metrics_textfile,
        )
        if compile_cache is not None:
            program.use_compile_cache(compile_cache)
        raise typer.Exit(run_trials(request, program.load_framework, Console()))

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
        dataset: DatasetOption = "mnist", device: DeviceOption = "auto", report_dir: ReportDirOption = Path("reports")
    ) -> None:
        """Check driver, NVML, framework, device, dataset and report folder: each line ok or what to do.

        With --device gpu it also uses the GPU for less than a minute; a bug report needs those lines.
        """
        from jobs.cli.doctor import examine  # noqa: PLC0415

        exit_code = ExitCode.DONE
        for finding in examine(program.load_framework, device=device, dataset=dataset, report_dir=report_dir):
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
