"""Which checkpoint a run goes on from, when the next is due, and which are kept."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from jobs.checkpoint.codec import CorruptCheckpoint, decode, encode
from jobs.checkpoint.metadata import (
    LAST_ATTEMPT,
    CheckpointMetadata,
    PhaseTime,
    check_extent,
    differences,
    identity_of_report,
)
from jobs.checkpoint.resume import Resumed
from jobs.errors import BadInput
from jobs.io.atomic_file import pending_file, sync_folder
from jobs.report import read, to_text
from jobs.report.schema import EarlierAttempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import Trainer
    from jobs.checkpoint.metadata import RunFingerprint
    from jobs.checkpoint.progress import Extent, TrainingProgress
    from jobs.checkpoint.resume import Attempt, HardwareInfo
    from jobs.phases import PhaseRecorder
    from jobs.report import Report

KEPT: Final = 2
NAME: Final = re.compile(r"(?P<run_id>[A-Za-z0-9][A-Za-z0-9._-]*)-e(?P<epoch>\d{6})-s(?P<step>\d{6})\.safetensors")
FINISHED_SUFFIX: Final = ".finished"
UNFINISHED: Final = frozenset({"interrupted", "failed"})
"""Statuses after which a run may go on."""
FOREIGN_SUFFIXES: Final = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".keras", ".h5", ".hdf5"})
"""Where frameworks keep what runs code when it is loaded: such a file is never opened."""


class NullCheckpointStore:
    """Keeps nothing, where no checkpoint folder was given."""

    keeps = False
    every_steps: int | None = None

    def finished(self, identity: RunFingerprint) -> None:
        pass

    def resume(self, identity: RunFingerprint, trainer: Trainer) -> None:
        pass

    def begin(self, identity: RunFingerprint, attempt: Attempt, here: HardwareInfo) -> Attempt:  # noqa: ARG002
        return attempt

    def save(self, trainer: Trainer, outcome: TrainingProgress, recorder: PhaseRecorder) -> None:
        pass

    def finish(self, report: Report) -> None:
        pass


class CheckpointStore:
    """The checkpoints of one run in one folder.

    A checkpoint that cannot be written costs the run nothing but that checkpoint: it is said, and the run goes on.
    """

    keeps = True

    def __init__(
        self,
        folder: Path,
        *,
        extent: Extent,
        every_steps: int | None,
        say: Callable[[str], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self.every_steps = every_steps
        self._folder = folder
        self._extent = extent
        self._say = say
        self._warn = warn
        self._refused: set[Path] = set()
        self._saved_at: tuple[int, int] | None = None
        self._warned = False

    def finished(self, identity: RunFingerprint) -> Report | None:
        """The report of the run that was finished in this folder, if one was.

        Raises:
            BadInput: it is of another configuration.
        """
        for path in sorted(path for path in self._files() if path.name.endswith(FINISHED_SUFFIX)):
            try:
                report = self._read_report(path)
            except BadInput as error:
                self._refuse(path, str(error))
                continue
            self._must_be_equal(path, identity_of_report(report), identity)
            return report
        return None

    def resume(self, identity: RunFingerprint, trainer: Trainer) -> Resumed | None:
        """Give ``trainer`` the newest good checkpoint's state; ``None``, and nothing done, where there is none.

        Raises:
            BadInput: the newest good checkpoint is of another configuration.
        """
        self._reject_unsafe_files()
        for path in self._checkpoints():
            try:
                checkpoint = decode(path)
            except CorruptCheckpoint as error:
                self._refuse(path, str(error))
                continue
            self._must_be_equal(path, checkpoint.state.identity, identity)
            try:
                check_extent(checkpoint.state, self._extent)
                trainer.load_state(checkpoint.arrays)
            except ValueError as error:
                self._refuse(path, str(error))
                continue
            self._saved_at = (checkpoint.state.epoch, checkpoint.state.step)
            return Resumed(path=path, state=checkpoint.state)
        return None

    def begin(self, identity: RunFingerprint, attempt: Attempt, here: HardwareInfo) -> Attempt:
        """Tell which attempt of which run is to be kept; what comes back has a number that no other attempt has.

        An attempt that ended before its first checkpoint had a number, too, and so has one that runs beside this one.
        """
        self._identity, self._here = identity, here
        self._attempt = replace(attempt, number=self._reserve_attempt_number(attempt))
        return self._attempt

    def _reserve_attempt_number(self, attempt: Attempt) -> int:
        number = attempt.number
        with suppress(OSError), pending_file(b"", self._folder, attempt.run_id) as part:
            while True:
                try:
                    part.link(self._folder / f"{attempt.run_id}.attempt-{number}")
                except FileExistsError:
                    number += 1
                else:
                    break
        return number

    def save(self, trainer: Trainer, outcome: TrainingProgress, recorder: PhaseRecorder) -> None:
        """Write a checkpoint of where the run stands, and let go of all but the last two."""
        position = (outcome.epoch, outcome.step)
        if position in {self._saved_at, (1, 0)}:
            return
        content = encode(self._state(outcome, recorder), trainer.state())
        path = self._folder / f"{self._attempt.run_id}-e{outcome.epoch:06d}-s{outcome.step:06d}.safetensors"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with pending_file(content, self._folder, self._attempt.run_id) as part:
                part.replace(path)
            sync_folder(self._folder)
            self._saved_at = position
            self._refused.discard(path)
            self._prune()
        except OSError as error:
            text = f"checkpoint {str(path)!r} cannot be written ({error.strerror or error}); the run goes on without it"
            if not self._warned:
                self._warn("checkpoint_not_written", text)
            self._warned = True
            self._say(text)

    def finish(self, report: Report) -> None:
        """Keep the finished run's report, so that a job started once more gives it again and trains nothing."""
        path = self._folder / f"{report.run_id}{FINISHED_SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with pending_file(to_text(report).encode(), self._folder, report.run_id) as part:
                part.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            self._say(f"{str(path)!r} cannot be written ({error.strerror or error}); a job started again would go on")

    def _state(self, outcome: TrainingProgress, recorder: PhaseRecorder) -> CheckpointMetadata:
        now = datetime.now(UTC)
        attempt, here = self._attempt, self._here
        this = EarlierAttempt(
            attempt=attempt.number,
            started_at_utc=attempt.started_at,
            saved_at_utc=now,
            epoch=outcome.epoch,
            step=outcome.step,
            device=here.device,
            cpu_model=here.cpu_model,
            phases_s=recorder.seconds_by_name(),
        )
        return CheckpointMetadata(
            identity=self._identity,
            run_id=attempt.run_id,
            attempt=attempt.number,
            epoch=outcome.epoch,
            step=outcome.step,
            epochs=list(outcome.epochs),
            examples_evaluated=outcome.examples_evaluated,
            spent=[
                PhaseTime(name=name, epoch=epoch, seconds=seconds)
                for (name, epoch), seconds in recorder.spent().items()
            ],
            first_step_images=list(outcome.first_step_images),
            attempts=[*attempt.earlier, this],
            saved_at_utc=now,
        )

    def _checkpoints(self) -> list[Path]:
        """The furthest first: a clock that was set back misleads nobody."""
        found = [(match, path) for path in self._files() if (match := NAME.fullmatch(path.name))]
        found.sort(key=lambda one: (one[0]["epoch"], one[0]["step"], one[0]["run_id"]), reverse=True)
        return [path for _, path in found]

    def _prune(self) -> None:
        own = [path for path in self._checkpoints() if path.name.startswith(f"{self._attempt.run_id}-e")]
        for path in [path for path in own if path not in self._refused][KEPT:]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except OSError as error:
            raise BadInput(
                f"checkpoint folder {str(self._folder)!r} cannot be read ({error.strerror or error}); "
                "fix its owner or mode, or choose another with --checkpoint-dir"
            ) from error

    def _read_report(self, path: Path) -> Report:
        if not path.is_file():
            raise BadInput("it is no regular file")
        report = read(path)
        if report.status in UNFINISHED or report.attempt > LAST_ATTEMPT:
            raise BadInput(f"attempt {report.attempt} with status {report.status} is no end of a run")
        return report

    def _reject_unsafe_files(self) -> None:
        for path in sorted(self._files()):
            if path.suffix.lower() in FOREIGN_SUFFIXES:
                self._refuse(path, "such files can run code when they are loaded and are never opened")

    def _refuse(self, path: Path, reason: str) -> None:
        self._refused.add(path)
        self._say(f"checkpoint {str(path)!r} is refused: {reason}")

    def _must_be_equal(self, path: Path, saved: RunFingerprint, wanted: RunFingerprint) -> None:
        found = differences(saved, wanted)
        if found:
            raise BadInput(
                f"checkpoint {str(path)!r} is of another run: {'; '.join(found)}; "
                "give the options it was started with, or another --checkpoint-dir"
            )
