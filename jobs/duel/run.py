"""Runs a plan's blocks one after the other until there are enough, and goes on where an earlier process stopped."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from jobs.duel.command import command_of, wait_for_container
from jobs.duel.order import order_in_block
from jobs.duel.plan import REPORTS, RunRecord
from jobs.duel.stopping import is_narrow_enough
from jobs.errors import BadInput, DatasetRefused, FrameworkMissing, JobError, NotWritable, NoUsableGpu
from jobs.exit_codes import ExitCode
from jobs.report import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from jobs.duel.plan import PlanFolder

MAX_LOST_RUNS: Final = 5
"""Runs that may be lost before the duel gives up. The same command tries as many again."""

NOT_ANOTHER_TIME: Final[dict[int, type[JobError]]] = {
    error.exit_code: error for error in (BadInput, NoUsableGpu, DatasetRefused, NotWritable, FrameworkMissing)
}
"""Failures that another run would have too: the duel ends with the same error."""

_DAMAGED: Final = "its report cannot be read: "

_DOCKER_ITSELF: Final = {125, 126, 127}
"""Exit codes of ``docker run`` if the container could not be started."""


class Duel:
    """A plan in the course of its runs."""

    def __init__(self, place: PlanFolder, say: Callable[[str], None]) -> None:
        self.place = place
        self.plan = place.plan
        self.say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        self._lost = 0

    def run(self) -> int | None:
        """Run blocks until there are enough; returns the signal that stopped it before, if one did.

        A block counts if both its runs completed. Otherwise it is lost: its runs stay recorded, its second run is left
        out, and another block takes its place.

        Raises:
            JobError: a run failed in a way that the next would too, or too many runs were lost.
        """
        with self._signals_passed_on():
            self._settle_unfinished()
            while self._signal is None and not self.is_done():
                self._run_block(self.plan.next_block)
        return self._signal

    def is_done(self) -> bool:
        """Whether there are enough blocks."""
        ratios, settings = self.plan.log_ratios(), self.plan.settings
        target = settings.half_width_percent
        if len(ratios) >= settings.blocks:
            return True
        if target is not None and is_narrow_enough(ratios, target):
            self.say(f"{len(ratios)} blocks are enough for an interval of about ±{target:g} %")
            return True
        return False

    def _run_block(self, block: int) -> None:
        order = order_in_block(self.plan.plan_id, block)
        self.say(
            f"block {block} ({len(self.plan.log_ratios())} of at most {self.plan.settings.blocks} are complete): "
            f"{order[0]}, then {order[1]}"
        )
        for position, framework in enumerate(order):
            run = RunRecord(block=block, position=position, framework=framework, started_at_utc=datetime.now(UTC))
            self.place.record(run)
            code = self._execute(run)
            run = self._settle(run, code)
            if self._signal is not None:
                return
            if run.outcome == "lost":
                self._check_loss(run, code)
                return

    def _execute(self, run: RunRecord) -> int:
        """Run it and return its exit code, which is negative if a signal ended it."""
        report_dir, log = self._report_dir(run), self._log(run)
        command, variables = command_of(self.plan, run, report_dir.resolve())
        try:
            report_dir.mkdir(parents=True, exist_ok=True)
            log.parent.mkdir(exist_ok=True)
            errors = log.open("wb")
        except OSError as error:
            raise NotWritable(
                f"{str(log)!r} cannot be written ({error.strerror or error}); fix it and go on"
            ) from error
        with errors:
            try:
                # In a session of its own, Ctrl-C does not reach it twice.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=variables,
                    pass_fds=[self.place.run_lock],
                    start_new_session=True,
                )
            except OSError as error:
                raise BadInput(
                    f"{command[0]!r} cannot be started ({error.strerror or error}); fix it and go on"
                ) from error
            if self._signal is not None:
                self._process.send_signal(self._signal)
            code = self._process.wait()
            self._process = None
        return code

    def _settle(self, run: RunRecord, code: int | None) -> RunRecord:
        """Record the outcome of a run that has ended, from its report; ``code`` is ``None`` if nobody saw its end."""
        speed, reason = self._measured(run, code)
        run = run.model_copy(
            update={
                "outcome": "lost" if reason else "completed",
                "reason": reason,
                "steady_images_per_s": speed,
            }
        )
        self.place.record(run)
        if reason:
            self.say(f"block {run.block} is lost: {run.framework}: {reason}")
        return run

    def _measured(self, run: RunRecord, code: int | None) -> tuple[float | None, str | None]:
        """The steady speed in the run's report, or the reason why the run is lost."""
        paths = sorted(self._report_dir(run).glob("*.json"))
        if not paths:
            return None, f"{_ending(code)}, without a report"
        try:
            report = read(paths[-1])
        except BadInput as error:
            return None, f"{_DAMAGED}{error}"
        framework, speed = report.environment.framework.name, report.results.steady_images_per_s
        if framework != run.framework:
            return None, f"{self.plan.settings.targets[run.framework]!r} trains with {framework}, not {run.framework}"
        if report.status != "completed":
            return None, f"{report.status}: {report.status_reason}"
        if not speed:
            return None, "only one step was trained, which has no steady speed: more --epochs are needed"
        return speed, None

    def _settle_unfinished(self) -> None:
        """Record the outcome of a run that an earlier process started and did not see the end of."""
        last = self.plan.runs[-1] if self.plan.runs else None
        if last is None:
            return
        self.say(f"plan {self.plan.plan_id} goes on: {len(self.plan.log_ratios())} blocks are complete")
        if last.outcome == "started":
            if self.plan.settings.runner == "docker":
                wait_for_container(self.plan, last)
            last = self._settle(last, None)
        if last.outcome == "completed" and last.position == 0:
            # Its partner would run at another time, which the block is there to rule out.
            self.say(f"block {last.block} is lost: the duel was stopped between its runs")

    def _check_loss(self, run: RunRecord, code: int) -> None:
        log = self._log(run)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last_line = lines[-1].removeprefix("error: ") if lines else "no message"
        where = f"{run.framework} ended with code {code}: {last_line} (all of it: {str(log)!r})"
        if self.plan.settings.runner == "docker" and code in _DOCKER_ITSELF:
            raise BadInput(where)
        if code in NOT_ANOTHER_TIME:
            raise NOT_ANOTHER_TIME[code](where)
        if code == ExitCode.DONE and run.reason is not None and not run.reason.startswith(_DAMAGED):
            # It trained as it was asked to, and would again.
            raise BadInput(f"{run.reason}; begin in another folder")
        self._lost += 1
        if self._lost > MAX_LOST_RUNS:
            raise JobError(
                f"{self._lost} runs were lost, the last in block {run.block}: {where}; "
                "mend the cause, then give the same command again"
            )

    def _report_dir(self, run: RunRecord) -> Path:
        return self.place.folder / REPORTS / run.name

    def _log(self, run: RunRecord) -> Path:
        return self.place.folder / "logs" / f"{run.name}.log"

    @contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        """SIGINT and SIGTERM go on to the run, which then writes its report; the duel ends after it."""

        def pass_on(number: int, _: FrameType | None) -> None:
            self._signal = number
            if self._process is not None:
                self._process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ending(code: int | None) -> str:
    if code is None:
        return "ended while the duel was not there"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
