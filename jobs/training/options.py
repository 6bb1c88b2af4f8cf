"""The options of ``train``: each is declared once, as a field of :class:`TrainRequest`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from jobs.choices import (
    SHARDS,
    DeviceChoice,
    Execution,
    InputPath,
    Precision,
    Reduction,
    Scaling,
    TelemetryMode,
    TrainingProtocol,
)
from jobs.recipes import LENET, RECIPES
from jobs.telemetry.types import Options as TelemetryOptions

if TYPE_CHECKING:
    RecipeName = str
else:
    # Typer reads the choices at run time; mypy cannot evaluate such a Literal.
    RecipeName = Literal[tuple(RECIPES)]


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


# Options of several commands.
DatasetOption = Annotated[
    str, typer.Option(metavar="NAME|DIR", help="mnist, synthetic, or a folder of IDX files.", show_default=True)
]
DeviceOption = Annotated[
    DeviceChoice, typer.Option(help="gpu fails if none is usable; it never falls back to the CPU.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic; set in the framework and read back.")]
ReportDirOption = Annotated[Path, _path("DIR", "Where the reports go.", "REPORT_DIR")]
# An option of doctor.
TimeLimitOption = Annotated[
    int, _count(1, 86_400, "Seconds for the checks that use the GPU; later ones are not begun.", metavar="S")
]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The options of ``train``. ``None`` leaves a choice to the recipe, or to what is fastest on the device."""

    recipe: Annotated[RecipeName, typer.Option(help="What is trained; each exists in both frameworks.")] = LENET.name
    protocol: Annotated[
        TrainingProtocol,
        typer.Option(help="matched: same weights, batches and arithmetic. published: as the post wrote it."),
    ] = "matched"
    epochs: Annotated[int | None, _count(0, 100_000, "Epochs. [default: the recipe's]")] = None
    batch_size: Annotated[int | None, _count(1, 60_000, "Images per step. [default: the recipe's]")] = None
    learning_rate: Annotated[
        float | None, typer.Option(callback=_positive, metavar="RATE", help="Learning rate. [default: the recipe's]")
    ] = None
    seed: Annotated[int | None, _count(0, 2**31 - 1, "Seed. [default: the recipe's]")] = None
    dataset: DatasetOption = "mnist"
    device: DeviceOption = "auto"
    precision: PrecisionOption = "fp32"
    execution: Annotated[
        Execution | None, typer.Option(help="How steps run. [default: the fastest for the device]")
    ] = None
    input: Annotated[
        InputPath | None, typer.Option(help="Where batches come from. [default: resident; published: streamed]")
    ] = None
    trials: Annotated[int, _count(1, 10_000, "Number of runs, with consecutive seeds.")] = 1
    repeat: Annotated[
        int, _count(1, 10_000, "Times that training is run; those after the first only measure speed and GPU.")
    ] = 1
    parity_steps: Annotated[
        int | None, _count(1, 100_000, "Also record a parity trace of this many steps; at least 8 below fp64.")
    ] = None
    measure_peak: Annotated[
        bool | None,
        typer.Option(
            "--measure-peak/--no-measure-peak",
            help="Measure the device's fastest matrix product after training (1 to 2 s). [default: on a GPU only]",
        ),
    ] = None
    report_dir: ReportDirOption = Path("reports")
    export_dir: Annotated[Path | None, _path("DIR", "Also write the trained weights (safetensors) here.")] = None
    checkpoint_dir: Annotated[
        Path | None,
        _path("DIR", "Keep checkpoints here, and resume from the last one if there is one.", "CHECKPOINT_DIR"),
    ] = None
    checkpoint_steps: Annotated[
        int | None, _count(1, 1_000_000, "Also every N steps. [default: each epoch]", metavar="N")
    ] = None
    compile_cache: Annotated[
        Path | None, _path("DIR", "Keep what --execution compiled compiles here, for the next run.", "COMPILE_CACHE")
    ] = None
    telemetry: Annotated[
        TelemetryMode, typer.Option(help="Where GPU and host are sampled: in a process or thread, or not at all.")
    ] = "process"
    sample_ms: Annotated[int, _count(10, 60_000, "Time between two GPU readings.", metavar="MS")] = 100
    gpm_ms: Annotated[int, _count(100, 60_000, "The same for GPM's, Hopper and later.", metavar="MS")] = 200
    slow_ms: Annotated[int, _count(100, 60_000, "The same for counters and the host.", metavar="MS")] = 1000
    metrics_textfile: Annotated[
        Path | None, _path("FILE", "Also write the results here in Prometheus text format.")
    ] = None
    design: Annotated[
        str | None,
        typer.Option(metavar="PLAN:BLOCK:POSITION", help="The run's place in an experiment of blocks, for the report."),
    ] = None

    ranks: Annotated[int, _count(1, SHARDS, "Processes that train one run together, a GPU each.")] = 1
    reduction: Annotated[
        Reduction | None,
        typer.Option(help="exact: the same bits on 1, 2, 4 and 8 ranks. fast: one sum. [default with --ranks: exact]"),
    ] = None
    scaling: Annotated[
        Scaling | None,
        typer.Option(help="strong: --batch-size is of all ranks. weak: of each. [default with --ranks: strong]"),
    ] = None
    with_baseline: Annotated[
        bool, typer.Option("--with-baseline", help="Also measure rank 0 alone, before and after, for the efficiency.")
    ] = False
    ranks_service: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The headless service of an Indexed Job: each of its pods is one rank.",
            envvar="MNIST_JOBS_RANKS_SERVICE",
        ),
    ] = None
    rank_timeout: Annotated[
        int, _count(5, 86_400, "Seconds to wait for all ranks to start.", metavar="S", envvar="MNIST_JOBS_RANK_TIMEOUT")
    ] = 300

    def telemetry_options(self) -> TelemetryOptions:
        intervals_s = {"fast_s": self.sample_ms / 1000, "gpm_s": self.gpm_ms / 1000, "slow_s": self.slow_ms / 1000}
        return TelemetryOptions(mode=self.telemetry, **intervals_s)


def train_signature() -> inspect.Signature:
    """A keyword parameter for each field of :class:`TrainRequest`, from which Typer makes the command's options.

    The first parameter is the command's context.
    """
    hints = get_type_hints(TrainRequest, include_extras=True)
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(TrainRequest)
    ]
    return inspect.Signature([context, *options])
