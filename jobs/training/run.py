"""One run after another: decide, watch, train, report."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs import datasets
from jobs.adapter import RunSpec
from jobs.checkpoint import UNFINISHED, Attempt, CheckpointStore, HardwareInfo, NullCheckpointStore, identity_of
from jobs.checkpoint.progress import TrainingProgress, extent_of
from jobs.errors import BadInput, NotWritable, OutOfMemory
from jobs.exit_codes import ExitCode
from jobs.io.memory import free_bytes, gib
from jobs.io.stdio import escape_control_chars
from jobs.phases import Clock, PhaseRecorder
from jobs.report import check_writable, to_line, write
from jobs.report.schema import MIN_ROUNDING_STATES
from jobs.telemetry import monitor
from jobs.training.console import Console, print_report_line
from jobs.training.environment import read_environment
from jobs.training.loop import LoopContext, train
from jobs.training.parity_trace import record_parity
from jobs.training.prometheus import check_textfile_writable, write_textfile
from jobs.training.report_builder import assemble_report
from jobs.training.seeding import initial_weights
from jobs.training.signals import Interrupted, InterruptGuard
from jobs.training.termination_message import note_report
from jobs.weights_file import weights_path, write_weights_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jobs.adapter import (
        DeviceChoice,
        Execution,
        Framework,
        FrameworkDevice,
        InputPath,
        Precision,
        Trainer,
        TrainingProtocol,
    )
    from jobs.checkpoint import RunFingerprint
    from jobs.datasets import ImageDataset
    from jobs.recipes import Recipe
    from jobs.report import Report
    from jobs.report.schema import Parity
    from jobs.telemetry.types import DeviceFacts, Options

EXIT_CODE_OF_STATUS = {
    "completed": ExitCode.DONE,
    "below_reference": ExitCode.BELOW_REFERENCE,
    "diverged": ExitCode.DIVERGED,
    "failed": ExitCode.INTERNAL_ERROR,
}


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What ``train`` was asked for; ``None`` leaves a choice to the recipe or to what is fastest."""

    recipe: Recipe
    protocol: TrainingProtocol
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    seed: int | None
    dataset: str
    device: DeviceChoice
    precision: Precision
    execution: Execution | None
    input: InputPath | None
    trials: int
    parity_steps: int | None
    measure_peak: bool | None
    report_dir: Path
    export_dir: Path | None
    checkpoint_dir: Path | None
    checkpoint_steps: int | None
    telemetry: Options
    metrics_textfile: Path | None


def run_trials(request: TrainRequest, load_framework: Callable[[], Framework], console: Console) -> int:
    """Run ``request.trials`` runs with seeds one apart, a report each, and return the program's exit code.

    The first run that does not complete decides the code; an interruption ends the series.

    Raises:
        JobError: nothing could be trained, or a report could not be written.
    """
    _check_request(request)
    check_writable(request.report_dir)
    if request.checkpoint_dir is not None:
        check_writable(request.checkpoint_dir, kind="checkpoint", option="--checkpoint-dir")
    if request.export_dir is not None:
        check_writable(request.export_dir, kind="weights", option="--export-dir")
    if request.metrics_textfile is not None:
        check_textfile_writable(request.metrics_textfile)
    first_seed = request.recipe.seed if request.seed is None else request.seed
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


def _check_request(request: TrainRequest) -> None:
    if request.epochs == 0 and request.parity_steps is None:
        raise BadInput("--epochs 0 trains nothing; give at least 1, or --parity-steps to record a parity trace alone")
    if request.checkpoint_steps is not None and request.checkpoint_dir is None:
        raise BadInput("--checkpoint-steps says how often; give --checkpoint-dir DIR to say where")
    if request.parity_steps is not None:
        _check_parity(request, request.parity_steps)


def _check_parity(request: TrainRequest, steps: int) -> None:
    if request.protocol != "matched":
        raise BadInput("--parity-steps: only --protocol matched starts both frameworks from the same weights")
    if request.precision != "fp64" and steps < MIN_ROUNDING_STATES:
        raise BadInput(
            f"--parity-steps {steps}: {request.precision} is judged from at least {MIN_ROUNDING_STATES} steps; give "
            "more, or --precision fp64"
        )


class _Run:
    """One run; a class only because its steps share so much."""

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
        self._request = request
        self._load_framework = load_framework
        self._console = console
        self._guard = guard
        self._started_at = datetime.now(UTC)
        # Memory that an earlier run of this process still holds on the GPU is not another's.
        self._watch = monitor.watch(clock=clock, options=request.telemetry, gpu_untouched=first)
        self._recorder = PhaseRecorder(clock, on_boundary=self._watch.mark)

    def execute(self) -> int:
        recorder, request, guard, watch = self._recorder, self._request, self._guard, self._watch
        guard.interrupt_immediately()
        try:
            guard.check()
            recorder.enter("startup")
            framework = self._load()
            untouched_until_s = time.monotonic()
            device = framework.select_device(request.device)
            facts = watch.attach(device, untouched_until_s=untouched_until_s)

            recorder.enter("dataset")
            data = datasets.load(request.dataset)
            guard.check()

            spec = self._resolve_spec(framework, device)
            peak_flop_per_s, peak_reason = self._measure_peak(framework, spec)

            recorder.enter("build")
            self._announce(framework, device, spec, data)
            identity = _identity(framework, spec, data)
            keeper = self._keeper(spec, data)
            finished = keeper.finished(identity)
            if finished is not None:
                return self._republish_finished_run(finished, keeper, framework, spec, data, facts)
            parity, trainer = self._build(framework, spec, data, facts)
            recorder.synchronize = trainer.synchronize
            outcome = TrainingProgress()
            environment, environment_reasons = read_environment(framework.versions(), facts)
            here = HardwareInfo(device=facts.name or device.name, cpu_model=environment.cpu.model)
            with self._memory_explained(framework, spec, facts):
                attempt = self._resume_or_start(
                    keeper, identity, trainer, outcome, here, run_id=self._run_id(framework, spec)
                )
            guard.defer_interrupts()

            loop = LoopContext(
                trainer=trainer,
                spec=spec,
                data=data,
                recorder=recorder,
                console=self._console,
                check_interrupt=guard.check,
                live=watch.latest,
                keeper=keeper,
            )
            failure, memory_peak_bytes = None, None
            try:
                train(loop, outcome)
                memory_peak_bytes = trainer.memory_peak_bytes()
                self._export(trainer, spec, outcome, attempt.run_id)
            except Exception as error:  # noqa: BLE001 - a run that failed is reported before its error goes on
                failure = self._translate_oom(error, framework, spec, facts)
                outcome.status, outcome.reason = "failed", _reason(failure)
                # The device may be the reason: it is not asked to finish anything more.
                recorder.synchronize = None
            recorder.finish()
        finally:
            observation = watch.stop(recorder.spans)
        report = assemble_report(
            attempt=attempt,
            spec=spec,
            data=data,
            trainer=trainer,
            outcome=outcome,
            recorder=recorder,
            observation=observation,
            environment=environment,
            device=device,
            facts=facts,
            parity=parity,
            finished_at=datetime.now(UTC),
            memory_peak_bytes=memory_peak_bytes,
            peak_flop_per_s=peak_flop_per_s,
            null_reasons=environment_reasons | {"results.ceiling_flop_per_s": peak_reason},
        )
        if report.status not in UNFINISHED:
            keeper.finish(report)
        self._publish(report)
        if failure is not None:
            raise failure
        return outcome.exit_code or EXIT_CODE_OF_STATUS[report.status]

    def _load(self) -> Framework:
        try:
            framework = self._load_framework()
        except Exception:
            # Raised inside a library's import, a signal may have become an error of the library's.
            self._guard.check()
            raise
        self._guard.check()
        return framework

    def _measure_peak(self, framework: Framework, spec: RunSpec) -> tuple[float | None, str]:
        """The device's matrix-product peak, measured in no phase, or ``None``; and the reason for ``None``."""
        wanted = self._request.measure_peak
        if not (spec.device == "gpu" if wanted is None else wanted):
            return None, "not measured: use --measure-peak"
        self._recorder.finish()
        try:
            return framework.matmul_flop_per_s(spec), ""
        except Exception as error:
            if not (isinstance(error, MemoryError) or framework.is_out_of_memory(error)):
                raise
            return None, "not measured: its matrices found too little memory"

    def _keeper(self, spec: RunSpec, data: ImageDataset) -> CheckpointStore | NullCheckpointStore:
        request = self._request
        if request.checkpoint_dir is None:
            return NullCheckpointStore()
        # Trials are runs of their own, each with its own checkpoints.
        folder = request.checkpoint_dir if request.trials == 1 else request.checkpoint_dir / f"seed-{request.seed}"
        check_writable(folder, kind="checkpoint", option="--checkpoint-dir")
        return CheckpointStore(
            folder,
            extent=extent_of(spec, data),
            every_steps=request.checkpoint_steps,
            say=self._console.line,
            warn=self._watch.warn,
        )

    def _build(
        self, framework: Framework, spec: RunSpec, data: ImageDataset, facts: DeviceFacts
    ) -> tuple[Parity | None, Trainer]:
        with self._memory_explained(framework, spec, facts):
            parity = self._parity(framework, spec, data)
            trainer = framework.create_trainer(spec, data)
            assert trainer.parameter_count == spec.recipe.parameter_count, "the model is not the recipe's"
            if spec.protocol == "matched":
                trainer.load_weights(initial_weights(spec.recipe, spec.seed))
        return parity, trainer

    @contextmanager
    def _memory_explained(self, framework: Framework, spec: RunSpec, facts: DeviceFacts) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            explained = self._translate_oom(error, framework, spec, facts)
            if explained is error:
                raise
            raise explained from error

    def _resume_or_start(
        self,
        keeper: CheckpointStore | NullCheckpointStore,
        identity: RunFingerprint,
        trainer: Trainer,
        outcome: TrainingProgress,
        here: HardwareInfo,
        *,
        run_id: str,
    ) -> Attempt:
        """Go on from the last checkpoint, if there is one, or begin the run ``run_id``."""
        resumed = keeper.resume(identity, trainer)
        attempt = Attempt(run_id=run_id, number=1, started_at=self._started_at, earlier=[])
        if resumed is not None:
            attempt = resumed.next_attempt(self._started_at)
            resumed.restore(outcome, self._recorder)
            elsewhere = resumed.hardware_changes(here)
            if elsewhere is not None:
                self._watch.warn("resumed_on_other_hardware", elsewhere)
            self._watch.warn("resumed", "what disturbed the attempts before this one is in their own reports, if any")
        attempt = keeper.begin(identity, attempt, here)
        if resumed is not None:
            self._console.line(
                f"going on from {str(resumed.path)!r}, {outcome.step} steps into epoch {outcome.epoch}: "
                f"attempt {attempt.number} of run {attempt.run_id}"
            )
        return attempt

    def _translate_oom(self, error: Exception, framework: Framework, spec: RunSpec, facts: DeviceFacts) -> Exception:
        """``error``, or what to do about it where memory has run out."""
        if not (isinstance(error, MemoryError) or framework.is_out_of_memory(error)):
            return error
        used = self._watch.latest().memory_used_bytes
        if spec.device == "gpu" and used is not None and facts.memory_total_bytes is not None:
            free = f"{gib(int(facts.memory_total_bytes - used))} of the GPU's {gib(facts.memory_total_bytes)}"
        else:
            free = f"{gib(free_bytes())} of the host's"
        return OutOfMemory(
            f"out of memory with batch size {spec.batch_size} in {spec.precision} ({free} free at the time: "
            f"{_first_line(error)}); use a smaller --batch-size, end other work on the device, or give the job more"
        )

    def _resolve_spec(self, framework: Framework, device: FrameworkDevice) -> RunSpec:
        request, recipe = self._request, self._request.recipe
        assert request.seed is not None
        # The post's own loops read through a loader; ours keep the set on the device.
        input_path = request.input or ("resident" if request.protocol == "matched" else "streamed")
        return RunSpec(
            recipe=recipe,
            protocol=request.protocol,
            seed=request.seed,
            epochs=recipe.epochs if request.epochs is None else request.epochs,
            batch_size=recipe.batch_size if request.batch_size is None else request.batch_size,
            learning_rate=recipe.learning_rate if request.learning_rate is None else request.learning_rate,
            precision=request.precision,
            execution=request.execution or framework.default_execution(device.kind, input_path),
            input=input_path,
            device=device.kind,
        )

    def _run_id(self, framework: Framework, spec: RunSpec) -> str:
        name = {"tensorflow": "tf", "torch": "torch"}[framework.versions().name]
        stamp = self._started_at.strftime("%Y%m%dT%H%M%SZ")
        return f"{stamp}-{name}-{spec.recipe.name}-{spec.protocol}-s{spec.seed}-{secrets.token_hex(3)}"

    def _announce(self, framework: Framework, device: FrameworkDevice, spec: RunSpec, data: ImageDataset) -> None:
        versions = framework.versions()
        self._console.line(
            f"{versions.name} {versions.version} on {device.name}: {spec.recipe.name}, {spec.protocol}, "
            f"seed {spec.seed}, {spec.epochs} epochs of {data.name} ({len(data.train_images)} images) "
            f"in batches of {spec.batch_size}, {spec.precision}, {spec.execution}, {spec.input}"
        )
        if self._request.device == "auto" and device.kind == "cpu":
            self._console.line("no GPU is usable here, so this runs on the CPU; --device gpu would refuse instead")

    def _parity(self, framework: Framework, spec: RunSpec, data: ImageDataset) -> Parity | None:
        steps = self._request.parity_steps
        if steps is None:
            return None
        return record_parity(lambda traced: framework.create_trainer(traced, data), spec, data, steps)

    def _export(self, trainer: Trainer, spec: RunSpec, outcome: TrainingProgress, run_id: str) -> None:
        folder = self._request.export_dir
        if folder is None or outcome.status != "completed":
            return
        self._recorder.enter("export")
        dtype = trainer.numerics.variable_dtype
        path = write_weights_file(folder, run_id=run_id, recipe=spec.recipe, weights=trainer.weights(), dtype=dtype)
        self._console.line(f"weights: {path}")

    def _republish_finished_run(
        self,
        report: Report,
        keeper: CheckpointStore | NullCheckpointStore,
        framework: Framework,
        spec: RunSpec,
        data: ImageDataset,
        facts: DeviceFacts,
    ) -> int:
        """A job that is started once more after it was done: whatever did not get through is given again."""
        request = self._request
        anew = "to train anew give another --checkpoint-dir"
        if request.parity_steps is not None and report.parity is None:
            raise BadInput(f"run {report.run_id} is finished, and recorded no parity trace; {anew}")
        self._console.line(f"run {report.run_id} is finished: here is its report again; {anew}")
        folder = request.export_dir
        if folder is not None and report.status == "completed" and not weights_path(folder, report.run_id).exists():
            _, trainer = self._build(framework, spec, data, facts)
            resumed = keeper.resume(_identity(framework, spec, data), trainer)
            if resumed is None or resumed.state.run_id != report.run_id or resumed.state.epoch <= spec.epochs:
                raise BadInput(f"run {report.run_id} is finished, but no checkpoint has its last weights; {anew}")
            self._export(trainer, spec, TrainingProgress(), report.run_id)
        path = request.report_dir / f"{report.run_id}-a{report.attempt}.json"
        self._publish(report, already=path if path.exists() else None)
        return int(EXIT_CODE_OF_STATUS[report.status])

    def _publish(self, report: Report, *, already: Path | None = None) -> None:
        note_report(report)
        line = to_line(report)
        try:
            path = already or write(report, self._request.report_dir)
        except NotWritable:
            # Nothing is lost: what cannot be kept in a file is printed, on a terminal too.
            print_report_line(line, always=True)
            raise
        unprinted = print_report_line(line)
        if unprinted is not None:
            # A copy, since the file is there.
            self._console.line(f"the report could not be printed, too ({unprinted.strerror or unprinted})")
        if self._request.metrics_textfile is not None:
            write_textfile(report, self._request.metrics_textfile)
        if report.status_reason is not None:
            self._console.line(f"{report.status}: {report.status_reason}")
        speed = report.results.steady_images_per_s
        if speed is not None:
            self._console.line(f"steady training: {speed:,.0f} images/s")
        self._console.line(f"report: {path}")


def _identity(framework: Framework, spec: RunSpec, data: ImageDataset) -> RunFingerprint:
    versions = framework.versions()
    return identity_of(
        spec,
        recipe=spec.recipe.name,
        framework=f"{versions.name} {versions.version}",
        dataset_sha256=data.sha256,
    )


def _reason(error: Exception) -> str:
    return _first_line(error) if isinstance(error, OutOfMemory) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return escape_control_chars(next(iter(str(error).splitlines()), ""))
