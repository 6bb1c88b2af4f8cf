"""The command line that ``mnist-tf`` and ``mnist-torch`` share, option for option."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs import __version__
from jobs.errors import FrameworkMissing, JobError
from jobs.exit_codes import ExitCode
from jobs.io.memory import no_room_to_load
from jobs.io.stdio import escape_control_chars, flush_stdio, open_streams, stdout_error
from jobs.training.signals import Ending
from jobs.training.termination_message import note_error, termination_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobs.adapter import Framework


@dataclass(frozen=True, kw_only=True)
class Program:
    """What makes one console script differ from the other."""

    name: Literal["mnist-tf", "mnist-torch"]
    framework: str
    title: str
    extra: str
    load: Callable[[], Framework]
    compile_cache: Callable[[Path], Mapping[str, str]]
    """The environment variables by which the framework's compilers keep their results in a folder."""

    def load_framework(self) -> Framework:
        """Import the framework, which takes seconds and is therefore put off until it is needed.

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
        """Keep what the framework compiles in ``folder``; to be called before it is loaded, as it reads this once.

        Raises:
            NotWritable: the folder cannot be made or written to.
        """
        from jobs.report import check_writable  # noqa: PLC0415 - help and usage errors stay quick

        check_writable(folder, kind="compile cache", option="--compile-cache")
        os.environ.update(self.compile_cache(folder.resolve()))


class RecipeName(StrEnum):
    LENET = "lenet"
    BASIC_CNN = "basic-cnn"


class ProtocolName(StrEnum):
    MATCHED = "matched"
    PUBLISHED = "published"


class DeviceName(StrEnum):
    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


class PrecisionName(StrEnum):
    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP64 = "fp64"


class ExecutionName(StrEnum):
    EAGER = "eager"
    GRAPH = "graph"
    COMPILED = "compiled"


class TelemetryName(StrEnum):
    PROCESS = "process"
    THREAD = "thread"
    OFF = "off"


class InputName(StrEnum):
    RESIDENT = "resident"
    STREAMED = "streamed"


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is not a finite number above 0")
    return value


def _within(low: int, high: int) -> Callable[[int | None], int | None]:
    """Check a count here and not by Typer's own min and max, whose message leaves the value out."""

    def check(value: int | None) -> int | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not between {low} and {high}")
        return value

    return check


def _show_version(context: typer.Context, asked: bool) -> None:  # noqa: FBT001 - the signature is Typer's
    if asked:
        typer.echo(f"{context.info_name} {__version__}")
        raise typer.Exit


# What the commands share is written once.
DatasetOption = Annotated[
    str, typer.Option(metavar="NAME|DIR", help="mnist, synthetic, or a folder of IDX files.", show_default=True)
]
DeviceOption = Annotated[DeviceName, typer.Option(help="gpu fails where none is usable: never a silent CPU run.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="Arithmetic; set in the framework and read back.")]
ReportDirOption = Annotated[
    Path, typer.Option(metavar="DIR", readable=False, envvar="MNIST_JOBS_REPORT_DIR", help="Where the reports go.")
]

# Sizes beyond these are slips of the keyboard; seeds must fit every generator's 32 bits.
EpochsOption = Annotated[int | None, typer.Option(callback=_within(0, 100_000), help="Epochs. [default: the recipe's]")]
BatchOption = Annotated[
    int | None, typer.Option(callback=_within(1, 60_000), help="Images a step. [default: the recipe's]")
]
RateOption = Annotated[
    float | None, typer.Option(callback=_positive, help="Learning rate. [default: the recipe's]", metavar="RATE")
]
SeedOption = Annotated[int | None, typer.Option(callback=_within(0, 2**31 - 1), help="Seed. [default: the recipe's]")]


def build_app(program: Program) -> typer.Typer:
    """The program's commands; importing and showing help needs no framework."""
    app = typer.Typer(
        name=program.name,
        help=f"Train, evaluate and report digit classifiers with {program.title}.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def common(
        version: Annotated[  # noqa: FBT002 - a flag
            bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    @app.command()
    def train(
        recipe: Annotated[RecipeName, typer.Option(help="What is trained; both exist in both frameworks.")] = (
            RecipeName.LENET
        ),
        protocol: Annotated[
            ProtocolName,
            typer.Option(help="matched: same weights, batches and arithmetic. published: as the post wrote it."),
        ] = ProtocolName.MATCHED,
        epochs: EpochsOption = None,
        batch_size: BatchOption = None,
        learning_rate: RateOption = None,
        seed: SeedOption = None,
        dataset: DatasetOption = "mnist",
        device: DeviceOption = DeviceName.AUTO,
        precision: PrecisionOption = PrecisionName.FP32,
        execution: Annotated[
            ExecutionName | None, typer.Option(help="How steps run. [default: the fastest for the device]")
        ] = None,
        input_path: Annotated[
            InputName | None,
            typer.Option("--input", help="Where batches come from. [default: resident; published: streamed]"),
        ] = None,
        trials: Annotated[int, typer.Option(callback=_within(1, 10_000), help="Runs, with seeds one apart.")] = 1,
        parity_steps: Annotated[
            int | None,
            typer.Option(callback=_within(1, 100_000), help="Also record a parity trace of this many steps."),
        ] = None,
        measure_peak: Annotated[
            bool | None,
            typer.Option(
                "--measure-peak/--no-measure-peak",
                help="Measure the device's fastest matrix product first, in 1 to 2 s. [default: on a GPU only]",
                show_default=False,
            ),
        ] = None,
        report_dir: ReportDirOption = Path("reports"),
        export_dir: Annotated[
            Path | None,
            typer.Option(metavar="DIR", readable=False, help="Also write the trained weights (safetensors) here."),
        ] = None,
        checkpoint_dir: Annotated[
            Path | None,
            typer.Option(
                metavar="DIR",
                readable=False,
                envvar="MNIST_JOBS_CHECKPOINT_DIR",
                help="Keep checkpoints here, and go on from the last one if there is one.",
            ),
        ] = None,
        checkpoint_steps: Annotated[
            int | None,
            typer.Option(metavar="N", callback=_within(1, 1_000_000), help="Every N steps, too. [default: each epoch]"),
        ] = None,
        compile_cache: Annotated[
            Path | None,
            typer.Option(
                metavar="DIR",
                readable=False,
                envvar="MNIST_JOBS_COMPILE_CACHE",
                help="Keep what --execution compiled compiles here, for the next run.",
            ),
        ] = None,
        telemetry: Annotated[
            TelemetryName, typer.Option(help="Where GPU and host are sampled: in a process of its own, or not at all.")
        ] = TelemetryName.PROCESS,
        sample_ms: Annotated[
            int, typer.Option(metavar="MS", callback=_within(10, 60_000), help="Time between two GPU readings.")
        ] = 100,
        gpm_ms: Annotated[
            int, typer.Option(metavar="MS", callback=_within(100, 60_000), help="The same for GPM's, Hopper and later.")
        ] = 200,
        slow_ms: Annotated[
            int, typer.Option(metavar="MS", callback=_within(100, 60_000), help="The same for counters and the host.")
        ] = 1000,
        metrics_textfile: Annotated[
            Path | None,
            typer.Option(metavar="FILE", readable=False, help="Also write the results here in Prometheus text format."),
        ] = None,
    ) -> None:
        """Train, evaluate after every epoch, and write one report a run."""
        from jobs.recipes import recipe_named  # noqa: PLC0415
        from jobs.telemetry.types import Options  # noqa: PLC0415
        from jobs.training.console import Console  # noqa: PLC0415 - help and usage errors stay quick
        from jobs.training.run import TrainRequest, run_trials  # noqa: PLC0415

        request = TrainRequest(
            recipe=recipe_named(recipe.value),
            protocol=protocol.value,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            dataset=dataset,
            device=device.value,
            precision=precision.value,
            execution=execution.value if execution else None,
            input=input_path.value if input_path else None,
            trials=trials,
            parity_steps=parity_steps,
            measure_peak=measure_peak,
            report_dir=report_dir,
            export_dir=export_dir,
            checkpoint_dir=checkpoint_dir,
            checkpoint_steps=checkpoint_steps,
            telemetry=Options(
                mode=telemetry.value, fast_s=sample_ms / 1000, gpm_s=gpm_ms / 1000, slow_s=slow_ms / 1000
            ),
            metrics_textfile=metrics_textfile,
        )
        if compile_cache is not None:
            program.use_compile_cache(compile_cache)
        raise typer.Exit(run_trials(request, program.load_framework, Console()))

    @app.command()
    def evaluate(
        weights: Annotated[
            Path, typer.Argument(metavar="WEIGHTS", readable=False, help="A file that train --export-dir wrote.")
        ],
        dataset: DatasetOption = "mnist",
        device: DeviceOption = DeviceName.AUTO,
        precision: PrecisionOption = PrecisionName.FP32,
    ) -> None:
        """Evaluate trained weights, of either framework, on all test images."""
        from jobs.cli.evaluate import evaluate_file  # noqa: PLC0415

        evaluation = evaluate_file(
            weights, program.load_framework, dataset=dataset, device=device.value, precision=precision.value
        )
        typer.echo(
            f"test loss {evaluation.loss:.6f}  test accuracy {evaluation.accuracy_ratio:.4f}  "
            f"({evaluation.correct} of {evaluation.examples})"
        )

    @app.command()
    def doctor(
        dataset: DatasetOption = "mnist",
        device: DeviceOption = DeviceName.AUTO,
        report_dir: ReportDirOption = Path("reports"),
    ) -> None:
        """Check driver, NVML, framework, device, dataset and report folder: each line ok or what to do."""
        from jobs.cli.doctor import examine  # noqa: PLC0415

        exit_code = ExitCode.DONE
        for finding in examine(program.load_framework, device=device.value, dataset=dataset, report_dir=report_dir):
            typer.echo(escape_control_chars(f"{finding.state:5} {finding.subject}: {finding.text}"))
            if finding.exit_code:
                note_error(f"{finding.subject}: {finding.text}")
            exit_code = exit_code or finding.exit_code
        raise typer.Exit(exit_code)

    @app.command()
    def dataset(
        dataset: DatasetOption = "mnist",
    ) -> None:
        """Fetch the data if need be, verify it, and say what it is."""
        from jobs.datasets import describe, load  # noqa: PLC0415

        description = describe(load(dataset))
        typer.echo(escape_control_chars(f"{description.name}  sha256 {description.sha256}  {description.location}"))
        for file in description.files:
            typer.echo(f"{file.sha256}  {file.content_bytes:>10} bytes  {file.name}")
        typer.echo(f"train {description.train_examples}, by digit {_counts(description.train_class_counts)}")
        typer.echo(f"test  {description.test_examples}, by digit {_counts(description.test_class_counts)}")

    return app


def _counts(counts: Sequence[int]) -> str:
    return " ".join(str(count) for count in counts)


def run_program(program: Program, arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; an expected failure is one line on standard error."""
    open_streams()
    # A character that the terminal's encoding lacks is no reason to fail.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    ending = Ending()
    ending.take_signals()
    try:
        with termination_message(program.name) as summary:
            summary.exit_code = exit_code_of(program, sys.argv[1:] if arguments is None else arguments)
        flush_stdio()
        code: Any = summary.exit_code
        ending.stands(code)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED_BY_KEYBOARD)
        ending.stands(code)
    except SystemExit as left:
        code = left.code
        ending.stands(code)
    sys.exit(code)


def exit_code_of(program: Program, arguments: Sequence[str]) -> int:
    command = typer.main.get_command(build_app(program))
    try:
        result = command.main(args=list(arguments), prog_name=program.name, standalone_mode=False)
    except JobError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted by SIGINT", ExitCode.INTERRUPTED_BY_KEYBOARD)
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        # Whoever read our standard output has left, as `| head` does; typer calls that an error of its own.
        return int(ExitCode.DONE)
    except OSError as error:
        untold = stdout_error(error)
        return _unexpected(error, program) if untold is None else _fail(str(untold), untold.exit_code)
    except Exception as error:  # noqa: BLE001 - the last place to turn an error into a line and a code
        return _unexpected(error, program)
    return result if isinstance(result, int) else int(ExitCode.DONE)


def _unexpected(error: Exception, program: Program) -> int:
    # Typer carries its own copy of click, so a usage error is told by what it can do, not by its class.
    format_message: Any = getattr(error, "format_message", None)
    if callable(format_message):
        message = " ".join(str(format_message()).split()).replace("Value error, ", "").rstrip(".")
        return _fail(f"{message}; see `{program.name} --help`" if message else "", ExitCode.BAD_INPUT)
    if type(error).__name__ == "Abort":
        return _fail("interrupted by SIGINT", ExitCode.INTERRUPTED_BY_KEYBOARD)
    if isinstance(error, MemoryError) or no_room_to_load(error):
        return _fail(
            f"out of memory ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "raise the limit that `ulimit -v` shows, or give the job more memory",
            ExitCode.OUT_OF_MEMORY,
        )
    traceback.print_exception(error)
    return _fail(f"unexpected {type(error).__name__}; please report it with the lines above", ExitCode.INTERNAL_ERROR)


def _fail(message: str, code: ExitCode) -> int:
    if message:
        note_error(message)
        with suppress(OSError):
            print(f"error: {escape_control_chars(message)}", file=sys.stderr)  # noqa: T201 - the one line a person sees
    return int(code)
