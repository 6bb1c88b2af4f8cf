"""The sums over ranks, by torch.distributed, and the time of the steps that need them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
import torch.distributed as dist
from torch import _foreach_copy_

from jobs.adapter import StepTimes
from jobs.errors import PeerLost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from jobs.ranks.group import RankGroup


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """The sum of 1, 2, 4 or 8 tensors in a fixed tree, ``((0 + 1) + (2 + 3)) + ...``, left in ``parts[0]``.

    A part may itself be the sum of a subtree: the bits do not depend on where the tree was cut.
    """
    while len(parts) > 1:
        parts = [left.add_(right) for left, right in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


class Collectives:
    """Adds tensors of fixed shapes over all ranks, in buffers that are made once."""

    def __init__(self, group: RankGroup, like: Sequence[Tensor], clock: StepClock) -> None:
        """``like`` has the shapes and the memory layouts of what will be added, all of one type and device."""
        self._size = group.size
        self._clock = clock
        if self._size == 1:
            return
        sizes = [tensor.numel() for tensor in like]
        # Each rank adds up one of these parts.
        self._part = -(-sum(sizes) // self._size)
        self._flat, self._received = (like[0].new_zeros(self._size * self._part) for _ in range(2))
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self._views = [
            torch.as_strided(self._flat, tensor.size(), tensor.stride(), start)
            for tensor, start in zip(like, starts, strict=True)
        ]

    def add_exact(self, sums: list[Tensor]) -> list[Tensor]:
        """The sum of all ranks' ``sums``, each that of the rank's subtree, in the rest of the fixed tree.

        Every rank adds up one part of all elements and receives the others' parts: the same tree for each element as
        if all were gathered, with the traffic of an all_reduce.

        Raises:
            PeerLost: a rank is gone.
        """
        if self._size == 1:
            return sums
        with self._communication():
            _foreach_copy_(self._views, sums)
            dist.all_to_all_single(self._received, self._flat)
            part = tree_sum(list(self._received.view(self._size, self._part)))
            dist.all_gather_into_tensor(self._flat, part)
        return self._views

    def add_fast(self, sums: list[Tensor]) -> list[Tensor]:
        """The sum of all ranks' ``sums``, in the order that the engine chooses.

        Raises:
            PeerLost: a rank is gone.
        """
        if self._size == 1:
            return sums
        with self._communication():
            _foreach_copy_(self._views, sums)
            dist.all_reduce(self._flat)
        return self._views

    def share_own(self, values: Tensor, own: range) -> None:
        """Fill ``values`` with every rank's own entries; those of this rank are ``own``.

        Raises:
            PeerLost: a rank is gone.
        """
        if self._size == 1:
            return
        with self._communication():
            values[: own.start] = 0
            values[own.stop :] = 0
            # One number of each sum is not zero, so that every order gives the same bits.
            dist.all_reduce(values)

    @contextmanager
    def _communication(self) -> Iterator[None]:
        with self._clock.span(COMMUNICATION):
            try:
                yield
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise PeerLost(f"torch.distributed lost another rank ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


STEP: Final = "step"
COMMUNICATION: Final = "communication"


class StepClock:
    """Adds up what steps and their communication take, on a GPU by the times at which it reached them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds: dict[str, float] = {}
        self._steps = 0

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the time of the block as part of ``name``."""
        if self._on_gpu:
            start = self._event()
            yield
            self._marks.append((name, start, self._event()))
        else:
            start_s = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - start_s)

    def count(self, steps: int) -> None:
        """Count steps that are done; a GPU has been waited for."""
        self._steps += steps
        for name, start, end in self._marks:
            self._add(name, start.elapsed_time(end) / 1000)
        self._marks.clear()

    def read(self) -> StepTimes:
        """The times since the last call."""
        communication_s = self._seconds.get(COMMUNICATION, 0.0)
        times = StepTimes(
            steps=self._steps,
            compute_s=max(0.0, self._seconds.get(STEP, 0.0) - communication_s),
            communication_s=communication_s,
        )
        self._seconds, self._steps = {}, 0
        return times

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
