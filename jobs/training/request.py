"""The request of ``train``, its resolution to a run's settings, and the run's fingerprint in a checkpoint."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from jobs import __version__
from jobs.adapter import RunSpec
from jobs.choices import SHARDS
from jobs.errors import BadInput
from jobs.io.atomic_file import check_writable
from jobs.recipes import RECIPES
from jobs.report.configuration import Design
from jobs.report.schema import MIN_ROUNDING_STATES
from jobs.training.prometheus import check_textfile_writable

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.adapter import Framework, FrameworkVersions
    from jobs.checkpoint.metadata import RunFingerprint
    from jobs.choices import DeviceKind
    from jobs.ranks.place import RankPlace
    from jobs.training.options import TrainRequest


NOT_IN_FINGERPRINT: Final = {
    "dataset": "the hash of its content is in the fingerprint; its folder may be moved",
    "trials": "each trial is a separate run with its own seed",
    "parity_steps": "a trace is recorded before training and changes nothing in it",
    "measure_peak": "measured after training, and changes nothing in it",
    "report_dir": "where files are written",
    "export_dir": "where files are written",
    "metrics_textfile": "where files are written",
    "checkpoint_dir": "where files are written",
    "checkpoint_steps": "how often files are written",
    "compile_cache": "where files are written",
    "telemetry": "how the run is sampled",
    "sample_ms": "how the run is sampled",
    "gpm_ms": "how the run is sampled",
    "slow_ms": "how the run is sampled",
    "with_baseline": "measured before and after training, and changes nothing in it",
    "ranks_service": "where the ranks find one another",
    "rank_timeout": "how long the ranks wait for one another",
    "design": "where the run stands in an experiment, which changes nothing in it",
}
"""Fields of :class:`TrainRequest` that may differ when a run is resumed, with the reason. All others may not."""


def parse_design(text: str) -> Design:
    """The place in an experiment that ``PLAN:BLOCK:POSITION`` names.

    Raises:
        BadInput: it names none; the message has the form that is needed.
    """
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127}):([0-9]{1,9}):([01])", text)
    if found is None:
        raise BadInput(
            f"--design {text[:200]!r} is not PLAN:BLOCK:POSITION, as in plan-1:0:1; PLAN is 1 to 128 letters, digits, "
            "'.', '_' and '-', BLOCK a number from 0, POSITION 0 for the block's first run or 1 for its second"
        )
    return Design(plan_id=found[1], block=int(found[2]), position=int(found[3]))


def check_request(request: TrainRequest) -> None:
    """Check before a run that its options can be combined and that its files can be written.

    Raises:
        BadInput: options cannot be combined; the message names them and what to do.
        NotWritable: a folder or a file cannot be written.
    """
    _check_ranks(request)
    steps = request.parity_steps
    if request.epochs == 0 and steps is None:
        raise BadInput("--epochs 0 trains nothing; give at least 1, or --parity-steps to record a parity trace alone")
    if request.epochs == 0 and request.repeat > 1:
        raise BadInput(f"--repeat {request.repeat}: --epochs 0 trains nothing to repeat; give one of the two")
    if request.checkpoint_steps is not None and request.checkpoint_dir is None:
        raise BadInput("--checkpoint-steps also needs a folder for the checkpoints: give --checkpoint-dir DIR")
    if steps is not None and request.protocol != "matched":
        raise BadInput("--parity-steps: only --protocol matched starts both frameworks from the same weights")
    if steps is not None and request.precision != "fp64" and steps < MIN_ROUNDING_STATES:
        raise BadInput(
            f"--parity-steps {steps}: {request.precision} is judged from at least {MIN_ROUNDING_STATES} steps; give "
            "more, or --precision fp64"
        )
    if request.design is not None:
        parse_design(request.design)
        if request.trials > 1:
            raise BadInput(f"--trials {request.trials}: --design is the place of one run; give one of the two")
    _check_writable(request)


def resolve_ranks(request: TrainRequest, place: RankPlace | None) -> TrainRequest:
    """``request`` with the options of ranks resolved: their number is that of the ranks that were started."""
    ranks = request.ranks if place is None else place.size
    several = ranks > 1
    return replace(
        request,
        ranks=ranks,
        reduction=request.reduction or ("exact" if several else None),
        scaling=request.scaling or ("strong" if several else None),
    )


def _check_ranks(request: TrainRequest) -> None:
    if request.ranks == 1:
        for option, given in (("--scaling", request.scaling), ("--with-baseline", request.with_baseline)):
            if given:
                raise BadInput(f"{option} compares one rank with several: also give --ranks of 2 or more")
    if request.reduction is not None:
        _check_reduction(request)


def _check_reduction(request: TrainRequest) -> None:
    if request.reduction == "exact" and SHARDS % request.ranks:
        raise BadInput(f"--ranks {request.ranks}: --reduction exact needs 1, 2, 4 or 8; or give --reduction fast")
    for option, value, allowed in (
        ("--protocol", request.protocol, "matched"),
        ("--input", request.input or "resident", "resident"),
    ):
        if value != allowed:
            raise BadInput(f"{option} {value}: ranks and --reduction need {option} {allowed}")
    if request.execution == "compiled":
        raise BadInput("--execution compiled: not with --ranks or --reduction; leave it out")
    if request.parity_steps is not None:
        raise BadInput("--parity-steps traces one rank that trains whole batches; leave out --ranks and --reduction")
    if request.repeat > 1:
        raise BadInput(f"--repeat {request.repeat}: not with --ranks or --reduction; give more --epochs")


def _check_writable(request: TrainRequest) -> None:
    for folder, kind, option in (
        (request.report_dir, "report", "--report-dir"),
        (request.checkpoint_dir, "checkpoint", "--checkpoint-dir"),
        (request.export_dir, "weights", "--export-dir"),
    ):
        if folder is not None:
            check_writable(folder, kind=kind, option=option)
    if request.metrics_textfile is not None:
        check_textfile_writable(request.metrics_textfile)


def checkpoint_folder(request: TrainRequest, seed: int) -> Path | None:
    """The folder of one run's checkpoints. Trials are runs of their own, each with its own folder."""
    folder = request.checkpoint_dir
    return folder if folder is None or request.trials == 1 else folder / f"seed-{seed}"


def resolve_spec(request: TrainRequest, framework: Framework, device: DeviceKind) -> RunSpec:
    """Resolve every default: a required field of :class:`RunSpec` that the request leaves open is the recipe's."""
    # The blog post's loops use a data loader; the matched ones keep the data on the device.
    input_path = request.input or ("resident" if request.protocol == "matched" else "streamed")
    recipe = RECIPES[request.recipe]
    batch_size = request.batch_size or recipe.batch_size
    values: dict[str, Any] = {name: getattr(request, name) for name in RunSpec.model_fields} | {
        "batch_size": batch_size * request.ranks if request.scaling == "weak" else batch_size,
        "recipe": recipe,
        "input": input_path,
        "execution": request.execution
        or framework.default_execution(device, input_path, in_shards=request.reduction is not None),
        "device": device,
    }
    return RunSpec(
        **{
            name: getattr(recipe, name) if value is None and RunSpec.model_fields[name].is_required() else value
            for name, value in values.items()
        }
    )


def run_fingerprint(
    request: TrainRequest, spec: RunSpec, dataset_sha256: str, versions: FrameworkVersions
) -> RunFingerprint:
    """All settings that affect a run's results: resolved options, the recipe's content, the data and the versions.

    It is made from all fields of both, so that a new option is part of it unless
    :data:`NOT_IN_FINGERPRINT` names it.
    """
    values = vars(request) | vars(spec)
    settings = {name: value for name, value in values.items() if name not in {*NOT_IN_FINGERPRINT, "recipe"}}
    settings |= {f"recipe.{field.name}": getattr(spec.recipe, field.name) for field in fields(spec.recipe)}
    return _as_text(settings) | {
        "dataset_sha256": dataset_sha256,
        "framework": f"{versions.name} {versions.version}",
        "mnist_jobs": __version__,
    }


def exchange_settings(request: TrainRequest) -> RunFingerprint:
    """Settings that decide when the ranks meet. They may change when a run is resumed, but not between its ranks."""
    settings = {name: getattr(request, name) for name in ("trials", "with_baseline", "checkpoint_steps")}
    return _as_text(settings | {"checkpoint_dir": "none" if request.checkpoint_dir is None else "given"})


def _as_text(settings: dict[str, Any]) -> RunFingerprint:
    """Each value as text, tuples item by item, so that a difference names the one layer in which it is."""
    text: RunFingerprint = {}
    for name, value in settings.items():
        if isinstance(value, tuple):
            text |= {f"{name}[{index}]": str(item) for index, item in enumerate(value)}
        else:
            text[name] = str(value)
    return text
