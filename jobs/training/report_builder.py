"""Puts one run's report together from what was decided, measured and observed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jobs.io.stdio import escape_control_chars
from jobs.recipes import Sgd, model_flop_per_image
from jobs.report.schema import SCHEMA_VERSION, Config, Dataset, Device, EpochResult, Optimizer, Phase, Report, Results

if TYPE_CHECKING:
    from datetime import datetime

    from jobs.adapter import FrameworkDevice, RunSpec, Trainer
    from jobs.checkpoint import Attempt
    from jobs.checkpoint.progress import TrainingProgress
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder
    from jobs.report.schema import Environment, Parity
    from jobs.telemetry.types import DeviceFacts, Observation

MATCHED_ADAM = "epsilon outside the bias-corrected root (Kingma and Ba 2015, section 2)"


def assemble_report(
    *,
    attempt: Attempt,
    spec: RunSpec,
    data: ImageDataset,
    trainer: Trainer,
    outcome: TrainingProgress,
    recorder: PhaseRecorder,
    observation: Observation,
    environment: Environment,
    device: FrameworkDevice,
    facts: DeviceFacts,
    parity: Parity | None,
    finished_at: datetime,
    memory_peak_bytes: int | None,
    peak_flop_per_s: float | None,
    null_reasons: dict[str, str],
) -> Report:
    """The whole report. ``null_reasons`` are the environment's; the others are added here."""
    results, result_reasons = _results(spec, data, outcome, recorder)
    share = results.achieved_flop_per_s / peak_flop_per_s if results.achieved_flop_per_s and peak_flop_per_s else None
    ceiling = {"ceiling_flop_per_s": peak_flop_per_s, "ceiling_share_ratio": share}
    results = results.model_copy(update={"framework_memory_peak_bytes": memory_peak_bytes, **ceiling})
    if peak_flop_per_s is None:
        result_reasons["results.ceiling_share_ratio"] = null_reasons["results.ceiling_flop_per_s"]
    if results.reference_accuracy_ratio is not None and outcome.status == "completed":
        _judge(outcome, results)
    reasons = {
        "status_reason": "the run completed",
        "parity": "not asked for (--parity-steps)",
        "phases[].epoch": "outside the epochs",
        "earlier_attempts[].cpu_model": "the system does not say",
        "config.optimizer": f"{'SGD' if isinstance(spec.recipe.optimizer, Sgd) else 'Adam'} has no such parameter",
        "config.numerics.thread_wait_policy": "the framework's idle threads sleep",
        "parity.rounding": "the run is in float64 itself",
        "config.numerics.intra_op_threads": "the framework does not say",
        **null_reasons,
        **facts.null_reasons,
        **observation.null_reasons,
        **result_reasons,
    }
    return Report(
        schema_version=SCHEMA_VERSION,
        run_id=attempt.run_id,
        attempt=attempt.number,
        status=outcome.status,
        status_reason=outcome.reason,
        started_at_utc=attempt.started_at,
        finished_at_utc=finished_at,
        environment=environment,
        devices=_devices(device, facts),
        config=_config(spec, data, trainer, environment),
        results=results,
        phases=[
            Phase(name=span.name, epoch=span.epoch, start_s=span.start_s, end_s=span.end_s, gpu=gpu, host=host)
            for span, gpu, host in zip(recorder.spans, observation.gpu, observation.host, strict=True)
        ],
        earlier_attempts=attempt.earlier,
        training=observation.training,
        validity=observation.validity,
        parity=parity,
        telemetry=observation.telemetry,
        timeseries=observation.timeseries,
        # Both quote what came from outside: variables, drivers, file names.
        warnings=[
            one.model_copy(update={"message": escape_control_chars(one.message)}) for one in observation.warnings
        ],
        null_reasons={path: escape_control_chars(reason) for path, reason in reasons.items()},
    ).prune_null_reasons()


def _judge(outcome: TrainingProgress, results: Results) -> None:
    accuracy, reference = results.test_accuracy_ratio, results.reference_accuracy_ratio
    if accuracy is not None and reference is not None and accuracy < reference:
        outcome.status = "below_reference"
        outcome.reason = f"test accuracy {accuracy:.4f} is below the recipe's reference {reference:.4f}"


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


def _config(spec: RunSpec, data: ImageDataset, trainer: Trainer, environment: Environment) -> Config:
    recipe = spec.recipe
    own = f"{environment.framework.name}'s own"
    matched = spec.protocol == "matched"
    if isinstance(recipe.optimizer, Sgd):
        optimizer = Optimizer(
            name="sgd",
            momentum=recipe.optimizer.momentum,
            beta_1=None,
            beta_2=None,
            epsilon=None,
            form="v = momentum v + g; w -= learning_rate v" if matched else own,
        )
    else:
        optimizer = Optimizer(
            name="adam",
            momentum=None,
            beta_1=recipe.optimizer.beta_1,
            beta_2=recipe.optimizer.beta_2,
            epsilon=recipe.optimizer.epsilon,
            form=MATCHED_ADAM if matched else own,
        )
    return Config(
        recipe=recipe.name,
        protocol=spec.protocol,
        framework=environment.framework.name,
        seed=spec.seed,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        dataset=Dataset(
            name=data.name,
            sha256=data.sha256,
            train_examples=len(data.train_images),
            test_examples=len(data.test_images),
        ),
        parameter_count=trainer.parameter_count,
        precision=spec.precision,
        execution=spec.execution,
        input=spec.input,
        device=spec.device,
        dropout=recipe.without_dropout() != recipe,
        initializer=f"{recipe.initializer}, drawn by NumPy" if matched else own,
        optimizer=optimizer,
        numerics=trainer.numerics,
    )


def _results(
    spec: RunSpec, data: ImageDataset, outcome: TrainingProgress, recorder: PhaseRecorder
) -> tuple[Results, dict[str, str]]:
    epochs = outcome.epochs
    last = epochs[-1] if epochs else None
    unfinished = outcome.reason or "no epoch was asked for (--epochs 0)"
    steady_images, steady_s = _steady(data, outcome, recorder)
    steady = steady_images / steady_s if steady_images and steady_s > 0 else None
    flop = model_flop_per_image(spec.recipe)
    results = Results(
        test_accuracy_ratio=last.accuracy_ratio if last else None,
        test_loss=_finite(last.test_loss) if last else None,
        train_loss=_finite(last.train_loss) if last else None,
        train_wall_s=recorder.total_s("first_step", "train") if epochs else None,
        steady_images_per_s=steady,
        time_to_accuracy_s=_time_to_accuracy(spec, data, outcome, recorder),
        target_accuracy_ratio=spec.recipe.target_accuracy if data.name == "mnist" else None,
        reference_accuracy_ratio=_reference(spec, data),
        test_examples_evaluated=outcome.examples_evaluated,
        model_flop_per_image=flop,
        achieved_flop_per_s=None if steady is None else steady * flop,
        ceiling_flop_per_s=None,
        ceiling_share_ratio=None,
        epochs=[
            EpochResult(
                epoch=e.epoch,
                wall_s=recorder.total_s("first_step", "train", epoch=e.epoch),
                train_loss=_finite(e.train_loss),
                test_loss=_finite(e.test_loss),
                test_accuracy_ratio=e.accuracy_ratio,
            )
            for e in epochs
        ],
    )
    return results, {
        "results": unfinished,
        "results.test_loss": "not finite" if epochs else unfinished,
        "results.train_loss": "not finite" if epochs else unfinished,
        "results.epochs[].train_loss": "not finite",
        "results.epochs[].test_loss": "not finite",
        "results.steady_images_per_s": "no step followed the first one" if epochs else unfinished,
        "results.achieved_flop_per_s": "no step followed the first one" if epochs else unfinished,
        "results.time_to_accuracy_s": f"test accuracy {spec.recipe.target_accuracy} was not reached on MNIST",
        "results.target_accuracy_ratio": f"the post reports none for {data.name}",
        "results.reference_accuracy_ratio": "the recipe has one for its own settings on MNIST and synthetic only",
        "results.framework_memory_peak_bytes": "the framework counts its allocations on GPUs only",
        "results.ceiling_share_ratio": "no step followed the first one" if epochs else unfinished,
    }


def _steady(data: ImageDataset, outcome: TrainingProgress, recorder: PhaseRecorder) -> tuple[int, float]:
    """Images and seconds of the train phases of finished epochs: an attempt's first step is a phase of its own."""
    finished = [epoch.epoch for epoch in outcome.epochs]
    apart = sum(images for epoch, images in outcome.first_step_images if epoch in finished)
    images = len(data.train_images) * len(finished) - apart
    return images, sum(recorder.total_s("train", epoch=epoch) for epoch in finished)


def _time_to_accuracy(
    spec: RunSpec, data: ImageDataset, outcome: TrainingProgress, recorder: PhaseRecorder
) -> float | None:
    if data.name != "mnist":
        return None
    passed_s = 0.0
    for epoch in outcome.epochs:
        passed_s += recorder.total_s("first_step", "train", epoch=epoch.epoch)
        if epoch.accuracy_ratio >= spec.recipe.target_accuracy:
            return passed_s
    return None


def _reference(spec: RunSpec, data: ImageDataset) -> float | None:
    own_settings = (spec.batch_size, spec.learning_rate) == (spec.recipe.batch_size, spec.recipe.learning_rate)
    return spec.recipe.reference_for(data.name, spec.epochs) if own_settings and spec.epochs else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
