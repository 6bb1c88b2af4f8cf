"""The checkpoint folder: resumes a run, writes and deletes its checkpoints, and stores a finished run's report."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Final

from jobs.checkpoint.codec import Checkpoint, CorruptCheckpoint, decode, encode
from jobs.checkpoint.metadata import MAX_ATTEMPT, CheckpointMetadata, FinishedRun, TrainingProgress, differences
from jobs.errors import BadInput
from jobs.io.atomic_file import write_file
from jobs.io.whole_number import whole_number
from jobs.report.schema import EarlierAttempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.adapter import Trainer
    from jobs.checkpoint.metadata import Attempt, Extent, RunFingerprint
    from jobs.phases import PhaseRecorder
    from jobs.report import Report

MAX_KEPT: Final = 2
NAME: Final = re.compile(r"(?P<run_id>[A-Za-z0-9][A-Za-z0-9._-]*)-e(?P<epoch>\d{6})-s(?P<step>\d{6})\.safetensors")
FINISHED_SUFFIX: Final = ".finished"
UNFINISHED: Final = frozenset({"interrupted", "failed"})
"""Statuses after which a run may be resumed."""
UNSAFE_SUFFIXES: Final = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".keras", ".h5", ".hdf5"})
"""Frameworks' formats that can run code when loaded; such files are never opened."""


def next_attempt(folder: Path | None) -> tuple[str, int] | None:
    """The run that the furthest checkpoint belongs to, and the number that its next attempt will have.

    By names alone, which takes no time; ``None`` without a checkpoint. Nothing is read or checked.
    """
    try:
        names = [] if folder is None else [path.name for path in folder.iterdir()]
    except OSError:
        return None
    found = max(filter(None, map(NAME.fullmatch, names)), key=_progress, default=None)
    if found is None:
        return None
    prefix = f"{found['run_id']}.attempt-"
    numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return found["run_id"], 1 + max(filter(None, map(whole_number, numbers)), default=1)


def _progress(name: re.Match[str]) -> tuple[str, str, str]:
    return name["epoch"], name["step"], name["run_id"]


class CheckpointStore:
    """The checkpoints of one run in one folder.

    A checkpoint that cannot be written gives a warning; the run continues.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: RunFingerprint,
        extent: Extent,
        every_steps: int | None,
        log: Callable[[str], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self.every_steps = every_steps
        self._folder = folder
        self._fingerprint = fingerprint
        self._extent = extent
        self._log = log
        self._warn = warn
        self._rejected: set[Path] = set()
        self._saved_at: tuple[int, int] | None = None
        self._warned = False

    def finished_report(self) -> Report | None:
        """The report of a run that finished in this folder; ``None`` without one.

        Raises:
            BadInput: its configuration is another one.
        """
        for path in (path for path in self._files() if path.name.endswith(FINISHED_SUFFIX)):
            try:
                finished = FinishedRun.model_validate_json(path.read_bytes(), strict=True)
            except (OSError, ValueError) as error:
                self._reject(path, " ".join(str(error).split())[:200])
                continue
            if finished.report.attempt > MAX_ATTEMPT:
                self._reject(path, f"its attempt is not plausible: the largest number is {MAX_ATTEMPT}")
                continue
            self._require_equal(path, finished.fingerprint)
            if finished.report.status not in UNFINISHED:
                return finished.report
        return None

    def resume(self, trainer: Trainer, *, at_most: tuple[int, int] | None = None) -> Checkpoint | None:
        """Load the newest valid checkpoint into ``trainer``; ``None``, and nothing changed, if there is none.

        ``at_most`` leaves out those after this epoch and step.

        Raises:
            BadInput: the newest valid checkpoint has another configuration.
        """
        for path in self._files():
            if path.suffix.lower() in UNSAFE_SUFFIXES:
                self._reject(path, "such files can run code when they are loaded and are never opened")
        for path in self._checkpoints():
            try:
                checkpoint = decode(path)
            except CorruptCheckpoint as error:
                self._reject(path, str(error))
                continue
            self._require_equal(path, checkpoint.metadata.fingerprint)
            progress = checkpoint.metadata.progress
            if at_most is not None and (progress.epoch, progress.step) > at_most:
                continue
            try:
                checkpoint.metadata.check(self._extent)
                trainer.load_state(checkpoint.arrays)
            except ValueError as error:
                self._reject(path, str(error))
                continue
            self._saved_at = (progress.epoch, progress.step)
            return checkpoint
        return None

    def resume_or_start(self, trainer: Trainer, attempt: Attempt) -> tuple[Attempt, TrainingProgress]:
        """Resume from the last checkpoint, or start ``attempt`` as a new run's first.

        Raises:
            BadInput: see :meth:`resume`.
        """
        return self.start(self.resume(trainer), attempt)

    def start(self, checkpoint: Checkpoint | None, attempt: Attempt) -> tuple[Attempt, TrainingProgress]:
        """Start ``attempt``, as the next one of the run of ``checkpoint`` if there is one."""
        if checkpoint is None:
            return self.register_attempt(attempt), TrainingProgress()
        metadata, progress = checkpoint.metadata, checkpoint.metadata.progress
        attempt = replace(
            attempt, run_id=metadata.run_id, number=metadata.attempts[-1].attempt + 1, earlier=metadata.attempts
        )
        hardware_changes = attempt.hardware_changes()
        if hardware_changes is not None:
            self._warn("resumed_on_other_hardware", hardware_changes)
        self._warn("resumed", "warnings of the attempts before this one are in their own reports, if any")
        attempt = self.register_attempt(attempt)
        self._log(
            f"resuming from {str(checkpoint.path)!r}, {progress.step} steps into epoch {progress.epoch}: "
            f"attempt {attempt.number} of run {attempt.run_id}"
        )
        return attempt, progress

    def register_attempt(self, attempt: Attempt) -> Attempt:
        """Start ``attempt``; the result has its number or a later one, which no other attempt of the run has.

        An attempt without a checkpoint also has a number: it ended early, or it runs at the same time.
        """
        for number in count(attempt.number):
            try:
                (self._folder / f"{attempt.run_id}.attempt-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                self._log(f"the attempt's number cannot be written to {str(self._folder)!r} ({error.strerror})")
            self._attempt = replace(attempt, number=number)
            break
        return self._attempt

    def save(self, trainer: Trainer, progress: TrainingProgress, recorder: PhaseRecorder) -> None:
        """Write a checkpoint of the run as it is now, and delete all but the last two."""
        position = (progress.epoch, progress.step)
        if position in {self._saved_at, (1, 0)}:
            return
        run_id = self._attempt.run_id
        content = encode(self._metadata(progress, recorder), trainer.state())
        path = self._folder / f"{run_id}-e{progress.epoch:06d}-s{progress.step:06d}.safetensors"
        try:
            self._write(content, path)
            self._saved_at = position
            self._rejected.discard(path)
            own = [path for path in self._checkpoints() if path.name.startswith(f"{run_id}-e")]
            for old in [path for path in own if path not in self._rejected][MAX_KEPT:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            text = f"checkpoint {str(path)!r} cannot be written ({error.strerror or error}); the run continues without"
            if not self._warned:
                self._warn("checkpoint_not_written", text)
            self._warned = True
            self._log(text)

    def finish(self, report: Report) -> None:
        """Store the finished run's report, so that the same command returns it and trains nothing."""
        path = self._folder / f"{report.run_id}{FINISHED_SUFFIX}"
        try:
            self._write(FinishedRun(fingerprint=self._fingerprint, report=report).model_dump_json().encode(), path)
        except OSError as error:
            self._log(f"{str(path)!r} cannot be written ({error.strerror or error}); a restarted job would train again")

    def _write(self, content: bytes, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file(content, path)

    def _metadata(self, progress: TrainingProgress, recorder: PhaseRecorder) -> CheckpointMetadata:
        attempt = self._attempt
        this = EarlierAttempt(
            attempt=attempt.number,
            started_at_utc=attempt.started_at,
            saved_at_utc=datetime.now(UTC),
            epoch=progress.epoch,
            step=progress.step,
            device=attempt.device,
            cpu_model=attempt.cpu_model,
            phases_s=recorder.seconds_by_name(),
        )
        return CheckpointMetadata(
            fingerprint=self._fingerprint,
            run_id=attempt.run_id,
            progress=progress.snapshot(recorder),
            attempts=[*attempt.earlier, this],
        )

    def _checkpoints(self) -> list[Path]:
        """Checkpoints by progress, the furthest first; the files' times are ignored."""
        named = [(match, path) for path in self._files() if (match := NAME.fullmatch(path.name))]
        named.sort(key=lambda pair: _progress(pair[0]), reverse=True)
        return [path for _, path in named]

    def _files(self) -> list[Path]:
        """All regular files. Others are never read, since a pipe could wait for ever; one with our name is named."""
        try:
            paths = sorted(self._folder.iterdir())
            files = [path for path in paths if path.is_file()]
        except OSError as error:
            raise BadInput(
                f"checkpoint folder {str(self._folder)!r} cannot be read ({error.strerror or error}); "
                "fix its owner or mode, or choose another with --checkpoint-dir"
            ) from error
        for path in sorted({*paths} - {*files}):
            if path not in self._rejected and (NAME.fullmatch(path.name) or path.name.endswith(FINISHED_SUFFIX)):
                self._reject(path, "it is not a regular file")
        return files

    def _reject(self, path: Path, reason: str) -> None:
        self._rejected.add(path)
        self._log(f"checkpoint {str(path)!r} is refused: {reason}")

    def _require_equal(self, path: Path, saved: RunFingerprint) -> None:
        different = differences(saved, self._fingerprint)
        if different:
            raise BadInput(
                f"checkpoint {str(path)!r} belongs to another run: {different}; "
                "use the options and the release it was started with, or another --checkpoint-dir"
            )
