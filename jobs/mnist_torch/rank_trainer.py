"""Training as one of several ranks, each of which computes its shards of every batch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import _foreach_add_

from jobs.choices import SHARDS
from jobs.mnist_torch.collectives import STEP, Collectives, StepClock, tree_sum
from jobs.mnist_torch.dropout import ShardDropout
from jobs.mnist_torch.trainer import TorchTrainer
from jobs.training.seeding import batches, shard_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jobs.adapter import RunSpec, StepTimes
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup
    from jobs.report.schema import Numerics

DETERMINISTIC: Final = "torch.backends.cudnn.deterministic"


class _EpochSteps:
    """An epoch's steps, each cut into shards of one static shape."""

    def __init__(self, order: NDArray[np.int32], spec: RunSpec, epoch: int, like: Tensor) -> None:
        """``like`` has the type of the losses, and the device."""
        indices, counts = batches(order, spec.batch_size)
        self.count = len(counts)
        self.seeds = shard_seeds(spec.seed, epoch, self.count, SHARDS)
        self._shard_size = -(-spec.batch_size // SHARDS)
        positions = torch.arange(SHARDS * self._shard_size, device=like.device)
        filled = np.pad(indices, ((0, 0), (0, len(positions) - spec.batch_size)))
        self._indices = torch.tensor(filled, device=like.device)
        self._counts: list[int] = counts.tolist()
        # A position after the last example has no weight.
        self._masks = {count: positions < count for count in set(self._counts)}
        self._weights = {count: mask.to(like.dtype) / count for count, mask in self._masks.items()}

    def part(self, index: int, shards: range) -> tuple[Tensor, Tensor, Tensor]:
        """Of the positions of ``shards`` in a step: the examples, their weights in the mean, and which exist."""
        positions = slice(shards.start * self._shard_size, shards.stop * self._shard_size)
        count = self._counts[index]
        return self._indices[index, positions], self._weights[count][positions], self._masks[count][positions]


class RankTrainer(TorchTrainer):
    """See :class:`jobs.adapter.Trainer`. All ranks have the same weights and the same state at each stop."""

    def __init__(self, spec: RunSpec, data: ImageDataset, group: RankGroup) -> None:
        # The generators of the shards of the next batch, which all dropout layers share.
        self._drawn_from: list[torch.Generator] = []
        super().__init__(spec, data, dropout=self._dropout)
        self._group = group
        self._exact = spec.reduction == "exact"
        if self._exact and self._device.type == "cuda":
            # Other kernels of cuDNN add in any order.
            torch.backends.cudnn.deterministic = True
        self._weights = list(self._model.parameters())
        self._clock = StepClock(self._device)
        self._collectives = Collectives(group, self._weights, self._clock)
        self._generators = [torch.Generator(self._device) for _ in range(SHARDS)]
        # By shard, so that the order in which losses are added is the same for any number of ranks.
        self._loss_total = torch.zeros(SHARDS, dtype=torch.float64, device=self._device)

    def _dropout(self, rate: float) -> nn.Module:
        return ShardDropout(rate, self._drawn_from)

    @property
    def numerics(self) -> Numerics:
        with self._threads():
            numerics = super().numerics
        settings = numerics.settings | {DETERMINISTIC: str(torch.backends.cudnn.deterministic)}
        return numerics.model_copy(update={"settings": settings})

    def loss_total(self) -> float:
        return float(tree_sum(list(self._loss_total.clone())))

    def step_times(self) -> StepTimes:
        return self._clock.read()

    def train_epoch(
        self,
        order: NDArray[np.int32] | None,
        on_step: Callable[[int], None],
        *,
        epoch: int,
        done: int = 0,
        stop_every: int | None = None,
    ) -> float:
        assert order is not None, "ranks train in the matched order"
        self._model.train()
        if done == 0:
            self._loss_total.zero_()
        epoch_steps = _EpochSteps(order, self._spec, epoch, self._weights[0])
        self._group.start_epoch()
        step = done
        with self._threads():
            while step < epoch_steps.count:
                # The first step counts as a phase of its own.
                latest = step + 1 if step == done else epoch_steps.count
                if stop_every is not None:
                    latest = min(latest, (step // stop_every + 1) * stop_every)
                stop = self._group.next_stop(step, latest)
                with self._clock.span(STEP):
                    for index in range(step, stop):
                        self._rank_step(epoch_steps, index)
                    self._collectives.share_own(self._loss_total, self._group.shards)
                self.synchronize()
                self._clock.count(stop - step)
                step = stop
                on_step(step)
        return self.loss_total() / len(order)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """One thread on a CPU for exact sums: several would divide an operation by their number."""
        threads = torch.get_num_threads()
        if self._exact and self._device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _rank_step(self, steps: _EpochSteps, index: int) -> None:
        shards = self._group.shards
        for shard in shards:
            self._generators[shard].manual_seed(int(steps.seeds[index, shard]))
        if self._exact:
            gradients = self._collectives.add_exact(self._tree_gradients(steps, index, shards))
        else:
            gradients = self._collectives.add_fast(self._gradients(steps, index, shards))
        for weight, gradient in zip(self._weights, gradients, strict=True):
            weight.grad = gradient
        self._optimizer.step()

    def _tree_gradients(self, steps: _EpochSteps, index: int, shards: range) -> list[Tensor]:
        """The sum of the gradients of ``shards``, each computed alone, in the fixed tree."""
        if len(shards) == 1:
            return self._gradients(steps, index, shards)
        half = len(shards) // 2
        left = self._tree_gradients(steps, index, shards[:half])
        _foreach_add_(left, self._tree_gradients(steps, index, shards[half:]))
        return left

    def _gradients(self, steps: _EpochSteps, index: int, shards: range) -> list[Tensor]:
        """The gradient of these shards' part of the batch's mean loss, computed as one batch."""
        self._drawn_from[:] = [self._generators[shard] for shard in shards]
        indices, weights, mask = steps.part(index, shards)
        # Without gradients from before, each weight takes its new one as it is.
        self._optimizer.zero_grad()
        losses = self._losses(*self._gather(indices))
        losses.backward(weights)  # type: ignore[no-untyped-call]
        sums = (losses.detach().double() * mask).view(len(shards), -1).sum(1)
        self._loss_total[shards.start : shards.stop] += sums
        return [weight.grad for weight in self._weights if weight.grad is not None]
