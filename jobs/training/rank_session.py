"""One rank's side of a run over several: what it agrees on with the others, and what each did."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobs.checkpoint.metadata import differences
from jobs.errors import BadInput, JobError, NoUsableGpu, PeerLost
from jobs.ranks.group import RankGroup
from jobs.ranks.process import choose_gpu, choose_threads, end_with_launcher
from jobs.ranks.rendezvous import connect
from jobs.report.rank_record import RankRecord
from jobs.report.schema import SCHEMA_VERSION
from jobs.training.rank_parts import RankParts, weights_sha256
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.adapter import Framework, FrameworkDevice, Trainer
    from jobs.checkpoint.codec import Checkpoint
    from jobs.checkpoint.metadata import Attempt, RunFingerprint
    from jobs.checkpoint.store import CheckpointStore
    from jobs.ranks.channel import Channel
    from jobs.ranks.place import RankPlace
    from jobs.report.ranks import RankPart
    from jobs.report.schema import GpuPhase
    from jobs.report.started import StartedRun
    from jobs.telemetry.types import DeviceFacts
    from jobs.training.options import TrainRequest
    from jobs.training.signals import InterruptGuard

LOSS_S: Final = 12.0
"""Time in which the channel knows of a peer whose loss a collective has noticed."""
STUCK_S: Final = 10.0
"""Time that training has to notice a lost peer by itself."""
REPORTING_S: Final = 25.0
"""Time after which this process ends, whatever it does, once a peer was lost."""


class RankSession:
    """The group, the control channel, and the parts of all ranks so far.

    A session of one rank, which ``--reduction exact`` alone has, is connected to nothing.
    """

    def __init__(self, place: RankPlace | None, *, guard: InterruptGuard, timeout_s: float) -> None:
        """Wait for all ranks.

        Raises:
            RanksNotConnected: one did not come.
        """
        node = os.environ.get("MNIST_JOBS_NODE_NAME") or socket.gethostname()
        self.place = place
        self.channel: Channel | None = None if place is None else connect(place, node=node, timeout_s=timeout_s)
        self._noticed = threading.Event()
        self._record: dict[str, Any] = {}
        self.group = RankGroup(
            rank=0 if place is None else place.rank,
            size=1 if place is None else place.size,
            exchange=None if self.channel is None else self.channel.exchange,
            pending_signal=guard.pending,
            interrupt=_interrupt,
        )
        self.parts = RankParts(self.group.size)
        self._joined = False
        if self.channel is not None:
            self.channel.call_on_lost(self._end_if_stuck)

    @property
    def is_first(self) -> bool:
        return self.group.is_first

    def from_first(self, value: Callable[[], Any]) -> Any:
        """Rank 0's ``value``, a small JSON value, in every rank; only rank 0 computes it."""
        return self.group.exchange(value() if self.is_first else None)[0]

    def start_run(self, framework: Framework, *, timeout_s: float) -> None:
        """Forget what the ranks did in an earlier run, and connect the framework's ranks, once in this process.

        Raises:
            RanksNotConnected: one did not come.
        """
        self.parts, self._record = RankParts(self.group.size), {}
        if self.place is not None and not self._joined:
            framework.join_ranks(self.place, timeout_s=timeout_s)
            self._joined = True

    def agree_on_device(self, device: FrameworkDevice, facts: DeviceFacts) -> None:
        """Refuse a run in which some ranks have a GPU and others do not, or two have the same.

        Raises:
            NoUsableGpu: there are fewer GPUs than ranks.
        """
        own = {
            "kind": device.kind,
            "device": facts.name or device.name,
            "uuid": facts.mig_uuid or facts.uuid or device.uuid,
        }
        found = self.group.exchange(own)
        nodes = self.channel.nodes if self.channel is not None else [socket.gethostname()]
        self.parts.update([{**part, "node": node} for part, node in zip(found, nodes, strict=True)])
        kinds = [part["kind"] for part in found]
        if len({*kinds}) > 1:
            without = [rank for rank, kind in enumerate(kinds) if kind == "cpu"]
            raise NoUsableGpu(
                f"ranks {without} of {self.group.size} have no usable GPU, and the others have one; "
                "a rank needs a GPU: start fewer ranks, or use --device cpu"
            )
        uuids = [part["uuid"] for part in found if part["uuid"] is not None]
        for uuid in uuids:
            same = [rank for rank, part in enumerate(found) if part["uuid"] == uuid]
            if len(same) > 1:
                raise NoUsableGpu(
                    f"ranks {same} of {self.group.size} have the same GPU ({uuid}), and a rank needs a GPU of its own: "
                    "start fewer ranks, or give each process another one in CUDA_VISIBLE_DEVICES"
                )

    def agree_on_settings(self, settings: RunFingerprint) -> None:
        """Refuse ranks that would train something else.

        Raises:
            BadInput: a setting, the data or a version differs.
        """
        for rank, other in enumerate(self.group.exchange(settings)):
            different = differences(other, settings)
            if different:
                raise BadInput(
                    f"rank {rank} and rank {self.group.rank} train with different settings: {different}; "
                    "start all ranks with the same options, data and release"
                )

    def resume(self, store: CheckpointStore, trainer: Trainer) -> Checkpoint | None:
        """Load the newest checkpoint that all ranks can read; ``None`` if no rank has one.

        Raises:
            BadInput: some ranks see checkpoints that others do not.
        """
        at_most = None
        while True:
            checkpoint = store.resume(trainer, at_most=at_most)
            own = None
            if checkpoint is not None:
                progress = checkpoint.metadata.progress
                own = [checkpoint.metadata.run_id, progress.epoch, progress.step]
            found = self.group.exchange(own)
            if all(other == own for other in found):
                return checkpoint
            if None in found or len({other[0] for other in found}) > 1:
                seen = ", ".join(f"rank {rank}: {other or 'none'}" for rank, other in enumerate(found))
                raise BadInput(
                    f"the ranks do not see the same checkpoints ({seen}); --checkpoint-dir must be one folder that all "
                    "ranks share"
                )
            at_most = min((other[1], other[2]) for other in found)

    def finish_epoch(self, trainer: Trainer, epoch: int, evaluate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Exchange each rank's times and the hash of its weights; returns what rank 0's ``evaluate`` returned.

        Raises:
            RanksDiffer: the weights are not the same in all ranks.
        """
        times = trainer.step_times()
        assert times is not None, "a trainer with shards times its steps"
        own = {
            "epoch": epoch,
            "steps": times.steps,
            "compute_s": times.compute_s,
            "communication_s": times.communication_s,
            "weights_sha256": weights_sha256(trainer),
        }
        found = self.group.exchange({"epoch": own, "evaluation": evaluate() if self.is_first else None})
        try:
            self.parts.add_epoch([part["epoch"] for part in found])
        finally:
            self._print_line(ended=False)
        evaluation: dict[str, Any] = found[0]["evaluation"]
        return evaluation

    def start_training(self, attempt: Attempt, started: StartedRun) -> Attempt:
        """``attempt`` with the run's id and number, which rank 0 has chosen; from here on ranks print their lines."""
        run_id, number, started_at = self.from_first(
            lambda: [attempt.run_id, attempt.number, attempt.started_at.isoformat()]
        )
        self._record = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "attempt": number,
            "started_at_utc": datetime.fromisoformat(started_at),
            "ranks": self.group.size,
            "config": started.config,
            "kubernetes": started.kubernetes,
        }
        return replace(attempt, run_id=run_id, number=number)

    def end_training(self, gpu: GpuPhase | None, *, failed: bool) -> None:
        """Exchange what telemetry saw of steady training, and print this rank's last line.

        Raises:
            PeerLost: a rank is gone.
        """
        try:
            if not failed:
                util = None if gpu is None or gpu.util_percent is None else gpu.util_percent.mean
                own = {"energy_j": None if gpu is None else gpu.energy_j, "util_percent": util}
                self.parts.update(self.group.exchange(own))
        finally:
            self._print_line(ended=True)

    def rank_parts(self) -> list[RankPart]:
        """All ranks, as far as they are known here."""
        return [self.parts.part(rank) for rank in range(self.group.size)]

    def _print_line(self, *, ended: bool) -> None:
        """Print this rank's part so far, which a pod's log keeps."""
        if self.group.size == 1 or not self._record:
            return
        record = RankRecord(**self._record, ended=ended, part=self.parts.part(self.group.rank))
        with suppress(OSError):
            if not sys.stderr.isatty():
                print(record.to_line(), file=sys.stderr, flush=True)  # noqa: T201 - the log is the interface here

    def tell_interruption(self, interruption: Interrupted) -> None:
        """Tell the others that a signal ended this rank before training."""
        self._noticed.set()
        if self.channel is not None:
            self.channel.fail(str(interruption), interruption.exit_code)

    def explained(self, error: Exception) -> Exception:
        """The lost peer if it caused ``error``; else the error, of which the other ranks are told."""
        if self.channel is None or self._noticed.is_set():
            return error
        self._noticed.set()
        if isinstance(error, PeerLost) or not isinstance(error, JobError):
            # A collective fails at once when a peer is gone; the channel says which one a little later.
            lost = self.channel.wait_for_loss(LOSS_S if isinstance(error, PeerLost) else STUCK_S / 2)
            if lost is not None:
                return lost
            if isinstance(error, PeerLost) and isinstance(error.__cause__, Exception):
                # All others are there: the collective failed here, and this rank is the one that failed.
                error = error.__cause__
        self.channel.fail(str(error) or type(error).__name__)
        return error

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()

    def _end_if_stuck(self, lost: PeerLost) -> None:
        """End this process if training does not: a collective may wait for ever for a peer that is gone."""

        def end() -> None:
            with suppress(OSError):
                os.write(2, f"error: {lost}\n".encode())
            os._exit(int(lost.exit_code))

        def end_unless_noticed() -> None:
            if not self._noticed.is_set():
                end()

        for seconds, function in ((STUCK_S, end_unless_noticed), (REPORTING_S, end)):
            timer = threading.Timer(seconds, function)
            timer.daemon = True
            timer.start()


@contextmanager
def rank_session(request: TrainRequest, place: RankPlace | None, guard: InterruptGuard) -> Iterator[RankSession | None]:
    """The session of a run that trains with shards; ``None`` for any other.

    Raises:
        RanksNotConnected: a rank did not come.
        PeerLost: in place of an error that a lost peer caused.
    """
    if request.reduction is None:
        yield None
        return
    if place is not None:
        choose_gpu(place, request.device)
    choose_threads(request.reduction, 1 if place is None else place.local_size)
    end_with_launcher()
    session = RankSession(place, guard=guard, timeout_s=request.rank_timeout)
    try:
        yield session
    except Interrupted as interruption:
        session.tell_interruption(interruption)
        raise
    except Exception as error:
        explained = session.explained(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        session.close()


def _interrupt(number: int) -> None:
    raise Interrupted(number)
