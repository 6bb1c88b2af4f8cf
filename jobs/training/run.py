"""One run after another: set up, train, report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobs.checkpoint.metadata import Attempt, TrainingProgress, extent_of
from jobs.checkpoint.store import UNFINISHED
from jobs.errors import BadInput, PeerLost
from jobs.exit_codes import ExitCode
from jobs.phases import Clock, PhaseRecorder
from jobs.recipes import RECIPES
from jobs.telemetry import monitor
from jobs.training.environment import read_environment
from jobs.training.failure import failure_reason
from jobs.training.loop import LoopContext, TrainingEnd, train
from jobs.training.one_rank import one_rank_parts, one_rank_training
from jobs.training.peak import measure_peak
from jobs.training.publish import publish
from jobs.training.rank_session import rank_session
from jobs.training.repeats import RepeatedTraining
from jobs.training.report_builder import assemble_report
from jobs.training.request import check_request, parse_design, resolve_ranks
from jobs.training.setup import set_up
from jobs.training.signals import Interrupted, InterruptGuard
from jobs.training.started import StartedRecord
from jobs.weights_file import weights_path, write_weights_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import Framework, Trainer
    from jobs.choices import FrameworkName
    from jobs.ranks.place import RankPlace
    from jobs.report import Report
    from jobs.telemetry.types import Observation
    from jobs.training.console import Console
    from jobs.training.options import TrainRequest
    from jobs.training.rank_session import RankSession
    from jobs.training.setup import RunSetup

EXIT_CODE_OF_STATUS = {
    "completed": ExitCode.DONE,
    "below_reference": ExitCode.BELOW_REFERENCE,
    "diverged": ExitCode.DIVERGED,
    "failed": ExitCode.INTERNAL_ERROR,
}
ANEW = "to train anew give another --checkpoint-dir"


def run_trials(
    request: TrainRequest,
    framework: FrameworkName,
    load_framework: Callable[[], Framework],
    console: Console,
    place: RankPlace | None = None,
) -> int:
    """Run ``request.trials`` runs with seeds one apart, a report each, and return the program's exit code.

    The first run that does not complete decides the code; an interruption ends the series. ``framework`` is the name
    of the one that ``load_framework`` loads. ``place`` is set in each of several ranks, of which the first reports.

    Raises:
        JobError: nothing could be trained, or a report could not be written.
    """
    request = resolve_ranks(request, place)
    check_request(request)
    first_seed = RECIPES[request.recipe].seed if request.seed is None else request.seed
    exit_code = int(ExitCode.DONE)
    try:
        with InterruptGuard() as guard, rank_session(request, place, guard) as session:
            is_first = session is None or session.is_first
            for trial in range(request.trials):
                clock = Clock.since_process_start() if trial == 0 else Clock()
                seed = first_seed + trial
                # The zero of the phases, which is when the process started.
                started_at = datetime.now(UTC) - timedelta(seconds=clock())
                started = StartedRecord(
                    request, framework, seed=seed, started_at=started_at, console=console, enabled=is_first
                )
                with started.recorded():
                    seeded = replace(request, seed=seed)
                    run = _Run(seeded, load_framework, console, guard, clock, started, session, first=trial == 0)
                    code = run.execute()
                exit_code = exit_code or code
                if code in {ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_BY_KEYBOARD}:
                    return code
    except Interrupted as interruption:
        console.line(f"{interruption} before training began: there is nothing to report")
        return interruption.exit_code
    return exit_code


class _Run:
    """One run. Its attributes are set in the order of its phases."""

    setup: RunSetup

    def __init__(
        self,
        request: TrainRequest,
        load_framework: Callable[[], Framework],
        console: Console,
        guard: InterruptGuard,
        clock: Clock,
        started: StartedRecord,
        session: RankSession | None,
        *,
        first: bool,
    ) -> None:
        self.request = request
        self.load_framework = load_framework
        self.console = console
        self.guard = guard
        self.started = started
        self.session = session
        # Memory that an earlier run of this process still holds on the GPU is not another's.
        self.monitor = monitor.watch(clock=clock, options=request.telemetry_options(), gpu_untouched=first)
        self.recorder = PhaseRecorder(clock, on_boundary=self.monitor.mark)

    def execute(self) -> int:
        """Run, write the report and return the exit code."""
        recorder = self.recorder
        self.guard.interrupt_immediately()
        try:
            setup = self.setup = set_up(
                self.request,
                self.load_framework,
                monitor=self.monitor,
                recorder=recorder,
                guard=self.guard,
                console=self.console,
                session=self.session,
            )
            code = self._from_first(self._code_of_finished_run) if setup.store is not None else None
            if code is not None:
                return code
            environment, null_reasons = read_environment(setup.framework.versions(), setup.facts)
            with setup.explain_memory():
                parity, trainer = setup.record_parity(), setup.create_trainer()
                recorder.synchronize = trainer.synchronize
                repeated = RepeatedTraining(trainer, setup.spec)
                attempt, progress = self._resume_or_start(trainer, environment.cpu.model)
                one_rank = one_rank_parts(setup, "before", recorder, self.guard)
            self.guard.defer_interrupts()
            loop = LoopContext(
                trainer=trainer,
                spec=setup.spec,
                data=setup.data,
                extent=extent_of(setup.spec, setup.data),
                recorder=recorder,
                console=self.console,
                # Several ranks end at the same step: RankGroup.next_stop raises.
                check_interrupt=self.guard.check if self.session is None else lambda: None,
                live=self.monitor.latest,
                store=setup.store,
                session=self.session,
            )
            failure, memory_peak_bytes = None, None
            try:
                end = train(loop, progress)
                memory_peak_bytes = trainer.memory_peak_bytes()
                if end.status == "completed":
                    self._export(trainer, attempt.run_id)
                    end = repeated.run(loop)
                    one_rank += one_rank_parts(setup, "after", recorder, self.guard)
            except Exception as error:  # noqa: BLE001 - a run that failed is reported before its error goes on
                failure = setup.explained(error)
                if self.session is not None:
                    failure = self.session.explained(failure)
                end = _end_of(failure)
                # The device may be the cause: do not wait for it again.
                recorder.synchronize = None
            recorder.finish()
            wanted = self.request.measure_peak if self._is_first else False
            peak_flop_per_s, peak_reasons = measure_peak(setup.framework, setup.spec, end, wanted=wanted)
        finally:
            observation = self.monitor.stop(recorder.spans)
        end, failure = self._end_ranks(observation, end, failure)
        if not self._is_first:
            if failure is not None:
                raise failure
            return self._exit_code_from_first(None)
        # NVML may have answered late.
        facts = self.monitor.device_facts()
        drivers = {name: getattr(facts, name) for name in ("driver_version", "cuda_driver_version")}
        report = assemble_report(
            attempt=attempt,
            spec=setup.spec,
            data=setup.data,
            trainer=trainer,
            progress=progress,
            end=end,
            recorder=recorder,
            repeats=repeated.results(recorder),
            observation=observation,
            environment=environment.model_copy(update=drivers),
            device=setup.device,
            facts=facts,
            parity=parity,
            memory_peak_bytes=memory_peak_bytes,
            peak_flop_per_s=peak_flop_per_s,
            null_reasons=null_reasons | peak_reasons,
            design=parse_design(self.request.design) if self.request.design else None,
            ranks=self.session.rank_parts() if self.session is not None else [],
            one_rank=one_rank_training(one_rank),
        )
        if setup.store is not None and report.status not in UNFINISHED:
            setup.store.finish(report)
        self._publish(report)
        if failure is not None:
            raise failure
        return self._exit_code_from_first(end.exit_code or EXIT_CODE_OF_STATUS[report.status])

    def _end_ranks(
        self, observation: Observation, end: TrainingEnd, failure: Exception | None
    ) -> tuple[TrainingEnd, Exception | None]:
        """``end`` and ``failure`` after all ranks have ended; one that is lost now makes the run failed."""
        if self.session is None:
            return end, failure
        training = observation.training
        try:
            self.session.end_training(training.gpu if training is not None else None, failed=failure is not None)
        except PeerLost as lost:
            failure = self.session.explained(lost)
            return _end_of(failure), failure
        return end, failure

    @property
    def _is_first(self) -> bool:
        """Whether this process writes the run's files: of several ranks only the first does."""
        return self.session is None or self.session.is_first

    def _from_first(self, value: Callable[[], int | None]) -> int | None:
        """``value``, which of several ranks only the first computes."""
        return value() if self.session is None else self.session.from_first(value)

    def _exit_code_from_first(self, code: int | None) -> int:
        shared = self._from_first(lambda: None if code is None else int(code))
        assert shared is not None, "the first rank has an exit code"
        return shared

    def _code_of_finished_run(self) -> int | None:
        """Give the results of a run again that was finished in the checkpoint folder; ``None`` without one."""
        assert self.setup.store is not None
        finished = self.setup.store.finished_report()
        return None if finished is None else self._republish_finished_run(finished)

    def _resume_or_start(self, trainer: Trainer, cpu_model: str | None) -> tuple[Attempt, TrainingProgress]:
        setup, session = self.setup, self.session
        attempt = Attempt(
            run_id=self.started.run_id,
            started_at=self.started.started_at,
            device=setup.facts.name or setup.device.name,
            cpu_model=cpu_model,
        )
        progress = TrainingProgress()
        if session is None:
            return (attempt, progress) if setup.store is None else setup.store.resume_or_start(trainer, attempt)
        if setup.store is not None:
            checkpoint = session.resume(setup.store, trainer)
            if session.is_first:
                attempt, progress = setup.store.start(checkpoint, attempt)
            elif checkpoint is not None:
                progress = checkpoint.metadata.progress
        return session.start_training(attempt, self.started.run), progress

    def _export(self, trainer: Trainer, run_id: str) -> None:
        folder = self.request.export_dir
        if folder is None or not self._is_first:
            return
        self.recorder.enter("export")
        dtype, weights = trainer.numerics.variable_dtype, trainer.weights()
        path = write_weights_file(folder, run_id=run_id, recipe=self.setup.spec.recipe, weights=weights, dtype=dtype)
        self.console.line(f"weights: {path}")

    def _republish_finished_run(self, report: Report) -> int:
        """Give the results of a run that was already finished here once more, since some may have been lost."""
        request, setup, run_id = self.request, self.setup, report.run_id
        assert setup.store is not None
        if request.parity_steps is not None and report.parity is None:
            raise BadInput(f"run {run_id} is finished, and recorded no parity trace; {ANEW}")
        self.console.line(f"run {run_id} is finished: here is its report again; {ANEW}")
        folder = request.export_dir
        if folder is not None and report.status == "completed" and not weights_path(folder, run_id).exists():
            with setup.explain_memory():
                # The other ranks only wait: this trainer needs none of them.
                trainer = setup.create_trainer(alone=True)
                last = setup.store.resume(trainer)
            if last is None or last.metadata.run_id != run_id or last.metadata.progress.epoch <= setup.spec.epochs:
                raise BadInput(f"run {run_id} is finished, but no checkpoint has its last weights; {ANEW}")
            self._export(trainer, run_id)
        self._publish(report, again=True)
        return int(EXIT_CODE_OF_STATUS[report.status])

    def _publish(self, report: Report, *, again: bool = False) -> None:
        publish(report, self.request, self.console, again=again)
        self.started.remove()


def _end_of(failure: Exception) -> TrainingEnd:
    """How training ended that raised ``failure``."""
    interrupted = isinstance(failure, PeerLost) and failure.is_interruption
    return TrainingEnd(status="interrupted" if interrupted else "failed", reason=failure_reason(failure))
