"""Dropout of a run over ranks: its random numbers belong to a shard, so that any rank may compute the shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from jobs.mnist_torch.cpu_layers import FastCpuDropout, random_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShardDropout(FastCpuDropout):
    """Dropout of a batch of one or more shards, each with its own generator; on a CPU and on a GPU.

    A model's layers draw from the same generators one after the other.
    """

    def __init__(self, rate: float, generators: Sequence[torch.Generator]) -> None:
        """``generators`` has one for each shard of the next batch; the trainer changes the list."""
        super().__init__(rate)
        self._generators = generators

    def _numbers(self, x: torch.Tensor) -> torch.Tensor:
        count = x.numel() // len(self._generators)
        drawn = [random_numbers(count, x.device, generator) for generator in self._generators]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn)
