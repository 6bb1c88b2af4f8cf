"""One run after another: resolve the settings, build, train, report."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobs import datasets
from jobs.checkpoint.metadata import Attempt, TrainingProgress, extent_of
from jobs.checkpoint.store import UNFINISHED, CheckpointStore
from jobs.errors import BadInput
from jobs.exit_codes import ExitCode
from jobs.io.atomic_file import check_writable
from jobs.phases import Clock, PhaseRecorder
from jobs.recipes import RECIPES
from jobs.telemetry import monitor
from jobs.training.environment import read_environment
from jobs.training.failure import explain_out_of_memory, failure_reason, is_out_of_memory
from jobs.training.loop import LoopContext, TrainingEnd, train
from jobs.training.parity_trace import record_parity
from jobs.training.publish import publish
from jobs.training.repeats import RepeatedTraining
from jobs.training.report_builder import assemble_report
from jobs.training.request import check_request, resolve_spec, run_fingerprint
from jobs.training.seeding import initial_weights
from jobs.training.signals import Interrupted, InterruptGuard
from jobs.weights_file import weights_path, write_weights_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import Framework, FrameworkDevice, RunSpec, Trainer
    from jobs.datasets import ImageDataset
    from jobs.report import Report
    from jobs.report.schema import Parity
    from jobs.telemetry.types import DeviceFacts
    from jobs.training.console import Console
    from jobs.training.options import TrainRequest

EXIT_CODE_OF_STATUS = {
    "completed": ExitCode.DONE,
    "below_reference": ExitCode.BELOW_REFERENCE,
    "diverged": ExitCode.DIVERGED,
    "failed": ExitCode.INTERNAL_ERROR,
}
RUN_ID_PREFIX = {"tensorflow": "tf", "torch": "torch"}
ANEW = "to train anew give another --checkpoint-dir"


def run_trials(request: TrainRequest, load_framework: Callable[[], Framework], console: Console) -> int:
    """Run ``request.trials`` runs with seeds one apart, a report each, and return the program's exit code.

    The first run that does not complete decides the code; an interruption ends the series.

    Raises:
        JobError: nothing could be trained, or a report could not be written.
    """
    check_request(request)
    first_seed = RECIPES[request.recipe].seed if request.seed is None else request.seed
    exit_code = int(ExitCode.DONE)
    with InterruptGuard() as guard:
        for trial in range(request.trials):
            clock = Clock.since_process_start() if trial == 0 else Clock()
            seeded = replace(request, seed=first_seed + trial)
            try:
                code = _Run(seeded, load_framework, console, guard, clock, first=trial == 0).execute()
            except Interrupted as interruption:
                console.line(f"{interruption} before training began: there is nothing to report")
                return interruption.exit_code
            exit_code = exit_code or code
            if code in {ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_BY_KEYBOARD}:
                return code
    return exit_code


class _Run:
    """One run. Its attributes are set in the order of its phases."""

    framework: Framework
    device: FrameworkDevice
    facts: DeviceFacts
    data: ImageDataset
    spec: RunSpec
    store: CheckpointStore | None

    def __init__(
        self,
        request: TrainRequest,
        load_framework: Callable[[], Framework],
        console: Console,
        guard: InterruptGuard,
        clock: Clock,
        *,
        first: bool,
    ) -> None:
        self.request = request
        self.load_framework = load_framework
        self.console = console
        self.guard = guard
        # The zero of the phases, which is when the process started.
        self.started_at = datetime.now(UTC) - timedelta(seconds=clock())
        # Memory that an earlier run of this process still holds on the GPU is not another's.
        self.monitor = monitor.watch(clock=clock, options=request.telemetry_options(), gpu_untouched=first)
        self.recorder = PhaseRecorder(clock, on_boundary=self.monitor.mark)

    def execute(self) -> int:
        """Run, write the report and return the exit code."""
        recorder = self.recorder
        self.guard.interrupt_immediately()
        try:
            self._prepare()
            finished = self.store.finished_report() if self.store is not None else None
            if finished is not None:
                return self._republish_finished_run(finished)
            environment, null_reasons = read_environment(self.framework.versions(), self.facts)
            with self._memory_explained():
                parity, trainer = self._build()
                recorder.synchronize = trainer.synchronize
                repeated = RepeatedTraining(trainer, self.spec)
                attempt, progress = self._resume_or_start(trainer, environment.cpu.model)
            self.guard.defer_interrupts()
            loop = LoopContext(
                trainer=trainer,
                spec=self.spec,
                data=self.data,
                extent=extent_of(self.spec, self.data),
                recorder=recorder,
                console=self.console,
                check_interrupt=self.guard.check,
                live=self.monitor.latest,
                store=self.store,
            )
            failure, memory_peak_bytes = None, None
            try:
                end = train(loop, progress)
                memory_peak_bytes = trainer.memory_peak_bytes()
                if end.status == "completed":
                    self._export(trainer, attempt.run_id)
                    end = repeated.run(loop)
            except Exception as error:  # noqa: BLE001 - a run that failed is reported before its error goes on
                failure = self._translate_oom(error)
                end = TrainingEnd(status="failed", reason=failure_reason(failure))
                # The device may be the cause: do not wait for it again.
                recorder.synchronize = None
            recorder.finish()
            peak_flop_per_s, peak_reasons = self._measure_peak(end)
        finally:
            observation = self.monitor.stop(recorder.spans)
        report = assemble_report(
            attempt=attempt,
            spec=self.spec,
            data=self.data,
            trainer=trainer,
            progress=progress,
            end=end,
            recorder=recorder,
            repeats=repeated.results(recorder),
            observation=observation,
            environment=environment,
            device=self.device,
            facts=self.facts,
            parity=parity,
            memory_peak_bytes=memory_peak_bytes,
            peak_flop_per_s=peak_flop_per_s,
            null_reasons=null_reasons | peak_reasons,
        )
        if self.store is not None and report.status not in UNFINISHED:
            self.store.finish(report)
        publish(report, self.request, self.console)
        if failure is not None:
            raise failure
        return end.exit_code or EXIT_CODE_OF_STATUS[report.status]

    def _prepare(self) -> None:
        """Load framework and data, choose the device and resolve the settings."""
        recorder, request, guard = self.recorder, self.request, self.guard
        guard.check()
        recorder.enter("startup")
        try:
            framework = self.framework = self.load_framework()
        finally:
            # A signal that is raised inside a library's import may come out as an error of that library.
            guard.check()
        untouched_until_s = time.monotonic()
        device = self.device = framework.select_device(request.device)
        self.facts = self.monitor.attach(device, untouched_until_s=untouched_until_s)
        recorder.enter("dataset")
        data = self.data = datasets.load(request.dataset)
        guard.check()
        spec = self.spec = resolve_spec(request, framework, device.kind)
        recorder.enter("build")
        versions = framework.versions()
        self.console.line(
            f"{versions.name} {versions.version} on {device.name}: {spec.recipe.name}, {spec.protocol}, "
            f"seed {spec.seed}, {spec.epochs} epochs of {data.name} ({len(data.train_images)} images) "
            f"in batches of {spec.batch_size}, {spec.precision}, {spec.execution}, {spec.input}"
        )
        if request.device == "auto" and device.kind == "cpu":
            self.console.line("no GPU is usable here, so this runs on the CPU; --device gpu would refuse instead")
        self.store = self._create_store()

    def _measure_peak(self, end: TrainingEnd) -> tuple[float | None, dict[str, str]]:
        """The device's matrix-product peak, measured after training and in no phase; or ``None``, and the reason."""
        wanted = self.request.measure_peak
        if not (self.spec.device == "gpu" if wanted is None else wanted):
            return None, {}
        reason = "the run did not complete"
        if end.status == "completed":
            try:
                return self.framework.matmul_flop_per_s(self.spec), {}
            except Exception as error:  # noqa: BLE001 - the run has trained, and is reported in any case
                no_memory = is_out_of_memory(error, self.framework)
                reason = "its matrices found too little memory" if no_memory else f"{type(error).__name__}: {error}"
        fields = ("results.ceiling_flop_per_s", "results.ceiling_share_ratio")
        return None, dict.fromkeys(fields, f"not measured: {reason}")

    def _create_store(self) -> CheckpointStore | None:
        request, folder = self.request, self.request.checkpoint_dir
        if folder is None:
            return None
        if request.trials > 1:
            # Trials are runs of their own, each with its own checkpoints.
            folder = folder / f"seed-{request.seed}"
            check_writable(folder, kind="checkpoint", option="--checkpoint-dir")
        return CheckpointStore(
            folder,
            fingerprint=run_fingerprint(request, self.spec, self.data.sha256, self.framework.versions()),
            extent=extent_of(self.spec, self.data),
            every_steps=request.checkpoint_steps,
            log=self.console.line,
            warn=self.monitor.warn,
        )

    def _build(self) -> tuple[Parity | None, Trainer]:
        framework, spec, data, steps = self.framework, self.spec, self.data, self.request.parity_steps
        parity = None
        if steps is not None:
            parity = record_parity(lambda traced: framework.create_trainer(traced, data), spec, data, steps)
        trainer = framework.create_trainer(spec, data)
        assert trainer.parameter_count == spec.recipe.parameter_count, "the model is not the recipe's"
        if spec.protocol == "matched":
            trainer.load_weights(initial_weights(spec.recipe, spec.seed))
        return parity, trainer

    def _resume_or_start(self, trainer: Trainer, cpu_model: str | None) -> tuple[Attempt, TrainingProgress]:
        attempt = Attempt(
            run_id=self._new_run_id(),
            started_at=self.started_at,
            device=self.facts.name or self.device.name,
            cpu_model=cpu_model,
        )
        return self.store.resume_or_start(trainer, attempt) if self.store is not None else (attempt, TrainingProgress())

    def _new_run_id(self) -> str:
        spec, prefix = self.spec, RUN_ID_PREFIX[self.framework.versions().name]
        stamp = self.started_at.strftime("%Y%m%dT%H%M%SZ")
        return f"{stamp}-{prefix}-{spec.recipe.name}-{spec.protocol}-s{spec.seed}-{secrets.token_hex(3)}"

    @contextmanager
    def _memory_explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            explained = self._translate_oom(error)
            if explained is error:
                raise
            raise explained from error

    def _translate_oom(self, error: Exception) -> Exception:
        """``error``, or what to do about it where memory has run out."""
        if not is_out_of_memory(error, self.framework):
            return error
        used_bytes = self.monitor.latest().memory_used_bytes
        return explain_out_of_memory(error, self.spec, used_bytes, self.facts.memory_total_bytes)

    def _export(self, trainer: Trainer, run_id: str) -> None:
        folder = self.request.export_dir
        if folder is None:
            return
        self.recorder.enter("export")
        dtype, weights = trainer.numerics.variable_dtype, trainer.weights()
        path = write_weights_file(folder, run_id=run_id, recipe=self.spec.recipe, weights=weights, dtype=dtype)
        self.console.line(f"weights: {path}")

    def _republish_finished_run(self, report: Report) -> int:
        """Give the results of a run that was already finished here once more, since some may have been lost."""
        request, run_id = self.request, report.run_id
        assert self.store is not None
        if request.parity_steps is not None and report.parity is None:
            raise BadInput(f"run {run_id} is finished, and recorded no parity trace; {ANEW}")
        self.console.line(f"run {run_id} is finished: here is its report again; {ANEW}")
        folder = request.export_dir
        if folder is not None and report.status == "completed" and not weights_path(folder, run_id).exists():
            with self._memory_explained():
                _, trainer = self._build()
                last = self.store.resume(trainer)
            if last is None or last.metadata.run_id != run_id or last.metadata.progress.epoch <= self.spec.epochs:
                raise BadInput(f"run {run_id} is finished, but no checkpoint has its last weights; {ANEW}")
            self._export(trainer, run_id)
        publish(report, request, self.console, again=True)
        return int(EXIT_CODE_OF_STATUS[report.status])
