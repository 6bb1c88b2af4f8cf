"""A process that writes reports and checkpoints is killed at any moment: every name stands for a whole file."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from jobs.checkpoint.codec import decode
from jobs.checkpoint.metadata import Attempt, Extent, TrainingProgress
from jobs.checkpoint.store import CheckpointStore
from jobs.io.atomic_file import pending_file
from jobs.phases import PhaseRecorder
from jobs.report import read, write
from tests.checkpoint.test_codec import NOW
from tests.support.programs import TORTURE, rounds
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.adapter import Trainer


class _Trainer:
    def __init__(self, size: int) -> None:
        self.size = size

    def state(self) -> dict[str, object]:
        return {"value": np.full(self.size, 1.0)}


def _write_for_ever(folder: Path, number: int, told: int) -> None:
    """Write one report and one checkpoint after another, and tell of each that is there."""
    run_id = f"run-{number}"
    extent = Extent(epochs=1, steps=1, train_examples=1, test_examples=1)
    store = CheckpointStore(
        folder,
        fingerprint={"seed": "1"},
        extent=extent,
        every_steps=None,
        log=lambda _: None,
        warn=lambda *_: None,
    )
    store.register_attempt(Attempt(run_id=run_id, started_at=NOW, device="cpu", cpu_model=None))
    progress, recorder, report = TrainingProgress(), PhaseRecorder(lambda: 0.0), make_report(run_id=run_id)
    while True:
        progress.step += 1
        store.save(cast("Trainer", _Trainer(20_000)), progress, recorder)
        path = write(report, folder)
        os.write(told, f"{path.name} {progress.step}\n".encode())


@pytest.mark.slow
@pytest.mark.timeout(3600 if TORTURE else 600)
def test_killed_writer_leaves_no_partial_file_and_loses_none(tmp_path: Path) -> None:
    draw = random.Random(1)  # noqa: S311 - moments, not secrets
    told_reports = 0
    for number in range(rounds(60, 1000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_for_ever(folder, number, told)
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(heard) as stream:
            # Every second time after its first report, which on a busy machine may take long.
            first = [stream.readline()] if number % 2 else []
            # Not to wait for anything: at some moment of its work.
            threading.Event().wait(draw.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            lines = [line.split() for line in (*first, *stream) if line.endswith("\n")]
        # One that was about to take another's place may have a hidden name, until the next is written.
        with pending_file(b"", folder, "next"):
            pass
        names = {path.name for path in folder.iterdir()}
        # Also no hidden part of one: a file has no name before it is whole.
        assert not [name for name in names if name.startswith(".")]
        for path in folder.iterdir():
            if path.suffix == ".json":
                read(path)
            elif path.suffix == ".safetensors":
                decode(path)
            else:
                assert path.name == f"run-{number}.attempt-1"
        told_reports += len(lines)
        assert {name for name, _ in lines} <= names
        if lines:
            steps = sorted(int(name[-18:-12]) for name in names if name.endswith(".safetensors"))
            assert steps[-1] >= int(lines[-1][1])
    assert told_reports > 0
