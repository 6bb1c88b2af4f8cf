"""Sets a run up before it trains: framework, device, data, settings and checkpoints."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs import datasets
from jobs.checkpoint.metadata import extent_of
from jobs.checkpoint.store import CheckpointStore
from jobs.io.atomic_file import check_writable
from jobs.ranks.group import RankGroup
from jobs.training.failure import explain_out_of_memory, is_out_of_memory
from jobs.training.parity_trace import record_parity
from jobs.training.request import checkpoint_folder, exchange_settings, resolve_spec, run_fingerprint
from jobs.training.seeding import initial_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import Framework, FrameworkDevice, RunSpec, Trainer
    from jobs.datasets import ImageDataset
    from jobs.phases import PhaseRecorder
    from jobs.report.schema import Parity
    from jobs.telemetry.monitor import RunMonitor
    from jobs.telemetry.types import DeviceFacts
    from jobs.training.console import Console
    from jobs.training.options import TrainRequest
    from jobs.training.rank_session import RankSession
    from jobs.training.signals import InterruptGuard


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """All that a run trains with."""

    request: TrainRequest
    framework: Framework
    device: FrameworkDevice
    facts: DeviceFacts
    data: ImageDataset
    spec: RunSpec
    store: CheckpointStore | None
    monitor: RunMonitor
    session: RankSession | None

    def record_parity(self) -> Parity | None:
        """The parity trace, if one was asked for."""
        framework, data, steps = self.framework, self.data, self.request.parity_steps
        if steps is None:
            return None
        return record_parity(lambda spec: framework.create_trainer(spec, data), self.spec, data, steps)

    def create_trainer(self, *, alone: bool = False) -> Trainer:
        """The trainer; in the matched protocol with the weights that its seed draws.

        ``alone``: it does not train, and so needs no other rank.
        """
        spec, group = self.spec, self.session.group if self.session is not None else None
        if group is not None and alone:
            group = RankGroup()
        trainer = self.framework.create_trainer(spec, self.data, group)
        assert trainer.parameter_count == spec.recipe.parameter_count, "the model is not the recipe's"
        if spec.protocol == "matched":
            trainer.load_weights(initial_weights(spec.recipe, spec.seed))
        return trainer

    @contextmanager
    def explain_memory(self) -> Iterator[None]:
        """Raise what to do about it in place of an error that says that memory has run out."""
        try:
            yield
        except Exception as error:
            explained = self.explained(error)
            if explained is error:
                raise
            raise explained from error

    def explained(self, error: Exception) -> Exception:
        """``error``, or what to do about it where memory has run out."""
        if not is_out_of_memory(error, self.framework):
            return error
        used_bytes = self.monitor.latest().memory_used_bytes
        return explain_out_of_memory(error, self.spec, used_bytes, self.facts.memory_total_bytes)


def set_up(
    request: TrainRequest,
    load_framework: Callable[[], Framework],
    *,
    monitor: RunMonitor,
    recorder: PhaseRecorder,
    guard: InterruptGuard,
    console: Console,
    session: RankSession | None = None,
) -> RunSetup:
    """Load framework and data, choose the device and resolve the settings, each in its phase.

    Raises:
        JobError: one of them cannot be used.
        Interrupted: a signal was received.
    """
    guard.check()
    recorder.enter("startup")
    try:
        framework = load_framework()
    finally:
        # A signal that is raised inside a library's import may come out as an error of that library.
        guard.check()
    if session is not None:
        session.start_run(framework, timeout_s=request.rank_timeout)
        guard.check()
    untouched_until_s = time.monotonic()
    device = framework.select_device(request.device)
    facts = monitor.attach(device, untouched_until_s=untouched_until_s)
    if monitor.watch_error is not None:
        console.line(f"error: {monitor.watch_error}")
    if session is not None:
        session.agree_on_device(device, facts)
    recorder.enter("dataset")
    data = datasets.load(request.dataset)
    guard.check()
    spec = resolve_spec(request, framework, device.kind)
    recorder.enter("build")
    versions = framework.versions()
    console.line(
        f"{versions.name} {versions.version} on {device.name}: {spec.recipe.name}, {spec.protocol}, "
        f"seed {spec.seed}, {spec.epochs} epochs of {data.name} ({len(data.train_images)} images) "
        f"in batches of {spec.batch_size}, {spec.precision}, {spec.execution}, {spec.input}"
    )
    if device.note is not None:
        console.line(device.note)
    if request.device == "auto" and device.kind == "cpu":
        console.line("no GPU is usable here, so this runs on the CPU; --device gpu would refuse instead")
    fingerprint = run_fingerprint(request, spec, data.sha256, versions)
    if session is not None:
        session.agree_on_settings(fingerprint | exchange_settings(request))
    folder, store = checkpoint_folder(request, spec.seed), None
    if folder is not None:
        if folder != request.checkpoint_dir:
            check_writable(folder, kind="checkpoint", option="--checkpoint-dir")
        store = CheckpointStore(
            folder,
            fingerprint=fingerprint,
            extent=extent_of(spec, data),
            every_steps=request.checkpoint_steps,
            log=console.line,
            warn=monitor.warn,
        )
    return RunSetup(
        request=request,
        framework=framework,
        device=device,
        facts=facts,
        data=data,
        spec=spec,
        store=store,
        monitor=monitor,
        session=session,
    )
