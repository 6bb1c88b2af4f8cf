"""Builds one run's report from its settings, results and telemetry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.io.stdio import escape_control_chars
from jobs.recipes import Sgd, model_flop_per_image
from jobs.report.configuration import Config, Dataset, Device, Optimizer
from jobs.report.schema import SCHEMA_VERSION, Phase, Report, Results

if TYPE_CHECKING:
    from jobs.adapter import FrameworkDevice, RunSpec, Trainer
    from jobs.checkpoint.metadata import Attempt, TrainingProgress
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder
    from jobs.report.configuration import Design, Environment
    from jobs.report.ranks import OneRankTraining, RankPart
    from jobs.report.repeats import Repeats
    from jobs.report.schema import Parity
    from jobs.telemetry.types import DeviceFacts, Observation
    from jobs.training.loop import TrainingEnd

OPTIMIZER_FORM = {
    "sgd": "v = momentum v + g; w -= learning_rate v",
    "adam": "epsilon outside the bias-corrected root (Kingma and Ba 2015, section 2)",
}
"""The arithmetic of the matched protocol."""


def assemble_report(
    *,
    attempt: Attempt,
    spec: RunSpec,
    data: ImageDataset,
    trainer: Trainer,
    progress: TrainingProgress,
    end: TrainingEnd,
    recorder: PhaseRecorder,
    repeats: Repeats | None,
    observation: Observation,
    environment: Environment,
    device: FrameworkDevice,
    facts: DeviceFacts,
    parity: Parity | None,
    memory_peak_bytes: int | None,
    peak_flop_per_s: float | None,
    null_reasons: dict[str, str],
    design: Design | None,
    ranks: list[RankPart],
    one_rank: OneRankTraining | None,
) -> Report:
    """The report. ``null_reasons`` are the environment's; the others are added here."""
    results = _results(spec, data, progress, recorder, repeats, memory_peak_bytes, peak_flop_per_s)
    if peak_flop_per_s is not None:
        null_reasons = null_reasons | {"results.ceiling_share_ratio": "no step followed the first one"}
    status, reason = end.status, end.reason
    accuracy, reference = results.test_accuracy_ratio, results.reference_accuracy_ratio
    if status == "completed" and accuracy is not None and reference is not None and accuracy < reference:
        status = "below_reference"
        reason = f"test accuracy {accuracy:.4f} is below the recipe's reference {reference:.4f}"
    if not progress.epochs:
        unfinished = reason or "no epoch was asked for (--epochs 0)"
        null_reasons = null_reasons | {f"results.{name}": unfinished for name in OF_FINISHED_EPOCHS}
    reasons = null_reasons | facts.null_reasons | observation.null_reasons
    return Report(
        schema_version=SCHEMA_VERSION,
        run_id=attempt.run_id,
        attempt=attempt.number,
        status=status,
        status_reason=reason,
        started_at_utc=attempt.started_at,
        finished_at_utc=datetime.now(UTC),
        environment=environment,
        devices=_devices(device, facts),
        config=_config(spec, data, trainer, environment, design),
        results=results,
        phases=[
            Phase(name=span.name, epoch=span.epoch, start_s=span.start_s, end_s=span.end_s, gpu=gpu, host=host)
            for span, gpu, host in zip(recorder.spans, observation.gpu, observation.host, strict=True)
        ],
        earlier_attempts=attempt.earlier,
        ranks=ranks,
        one_rank=one_rank,
        training=observation.training,
        validity=observation.validity,
        parity=parity,
        telemetry=observation.telemetry,
        timeseries=observation.timeseries,
        # Warnings and reasons quote untrusted text: variables, drivers, file names.
        warnings=[
            warning.model_copy(update={"message": escape_control_chars(warning.message)})
            for warning in observation.warnings
        ],
        null_reasons={},
    ).with_null_reasons({path: escape_control_chars(text) for path, text in reasons.items()})


def _devices(device: FrameworkDevice, facts: DeviceFacts) -> list[Device]:
    if device.kind == "cpu":
        return []
    return [
        Device(
            framework_index=device.index,
            uuid=facts.uuid or device.uuid,
            mig_uuid=facts.mig_uuid,
            pci_bus_id=facts.pci_bus_id or device.pci_bus_id,
            name=facts.name or device.name,
            compute_capability=device.compute_capability or facts.compute_capability,
            memory_total_bytes=facts.memory_total_bytes or device.memory_total_bytes,
            power_limit_w=facts.power_limit_w,
            mapping_method=facts.mapping_method,
        )
    ]


def _config(
    spec: RunSpec, data: ImageDataset, trainer: Trainer, environment: Environment, design: Design | None
) -> Config:
    """The settings of ``spec`` and values derived from them."""
    recipe = spec.recipe
    matched, own = spec.protocol == "matched", f"{environment.framework.name}'s own"
    name = "sgd" if isinstance(recipe.optimizer, Sgd) else "adam"
    parameters = ("momentum", "beta_1", "beta_2", "epsilon")
    derived: dict[str, Any] = {
        "recipe": recipe.name,
        "framework": environment.framework.name,
        "dataset": Dataset(
            name=data.name,
            sha256=data.sha256,
            train_examples=len(data.train_images),
            test_examples=len(data.test_images),
        ),
        "parameter_count": trainer.parameter_count,
        "dropout": recipe.without_dropout() != recipe,
        "initializer": f"{recipe.initializer}, drawn by NumPy" if matched else own,
        "optimizer": Optimizer.model_validate(
            {key: getattr(recipe.optimizer, key, None) for key in parameters}
            | {"name": name, "form": OPTIMIZER_FORM[name] if matched else own}
        ),
        "numerics": trainer.numerics,
        "design": design,
    }
    return Config.model_validate(vars(spec) | derived)


OF_FINISHED_EPOCHS = (
    "test_accuracy_ratio",
    "test_loss",
    "train_loss",
    "train_wall_s",
    "steady_images_per_s",
    "time_to_accuracy_s",
    "test_examples_evaluated",
    "achieved_flop_per_s",
)
"""Results that a run without a finished epoch does not have."""


def _results(
    spec: RunSpec,
    data: ImageDataset,
    progress: TrainingProgress,
    recorder: PhaseRecorder,
    repeats: Repeats | None,
    memory_peak_bytes: int | None,
    peak_flop_per_s: float | None,
) -> Results:
    epochs = progress.epochs
    last = epochs[-1] if epochs else None
    # All trainings together: total images over total time.
    images = progress.steady_images + (repeats.images if repeats else 0)
    steady_s = progress.steady_s + (repeats.train_s if repeats else 0.0)
    speed = images / steady_s if images > 0 and steady_s > 0 else None
    flop = model_flop_per_image(spec.recipe)
    achieved = None if speed is None else speed * flop
    # The speed is that of all ranks, the peak that of this rank's device.
    share = None if achieved is None or peak_flop_per_s is None else achieved / spec.ranks / peak_flop_per_s
    on_mnist = data.name == "mnist"
    return Results(
        test_accuracy_ratio=last.test_accuracy_ratio if last else None,
        test_loss=last.test_loss if last else None,
        train_loss=last.train_loss if last else None,
        train_wall_s=sum(epoch.wall_s for epoch in epochs) + progress.wall_s(recorder) if epochs else None,
        steady_images_per_s=speed,
        time_to_accuracy_s=_time_to_accuracy(progress, spec.recipe.target_accuracy) if on_mnist else None,
        target_accuracy_ratio=spec.recipe.target_accuracy if on_mnist else None,
        reference_accuracy_ratio=_reference(spec, data),
        test_examples_evaluated=progress.examples_evaluated,
        model_flop_per_image=flop,
        achieved_flop_per_s=achieved,
        ceiling_flop_per_s=peak_flop_per_s,
        ceiling_share_ratio=share,
        framework_memory_peak_bytes=memory_peak_bytes,
        epochs=epochs,
        repeats=repeats,
    )


def _time_to_accuracy(progress: TrainingProgress, target: float) -> float | None:
    passed_s = 0.0
    for epoch in progress.epochs:
        passed_s += epoch.wall_s
        if epoch.test_accuracy_ratio is not None and epoch.test_accuracy_ratio >= target:
            return passed_s
    return None


def _reference(spec: RunSpec, data: ImageDataset) -> float | None:
    own_settings = (spec.batch_size, spec.learning_rate) == (spec.recipe.batch_size, spec.recipe.learning_rate)
    return spec.recipe.reference_for(data.name, spec.epochs) if own_settings and spec.epochs else None
