"""Dropout that computes what torch's own does, quicker on a CPU."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

SHARE_BITS: Final = 16


class PackedDropout(nn.Module):
    """Dropout with four elements' chances in one random word.

    Torch's own draws a number for each element, one after another, which took a tenth of a step of ``basic-cnn`` on a
    CPU. The rate is met to 2^-17; what is kept is divided by the share in force, so that the mean is exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        dropped = round(rate * 2**SHARE_BITS)
        self._lowest_kept = dropped - 2 ** (SHARE_BITS - 1)
        self._scale = 1 / (1 - dropped / 2**SHARE_BITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        chances = words.view(torch.int16)[: x.numel()]
        mask = (chances >= self._lowest_kept).to(x.dtype).mul_(self._scale)
        # In the order in which the elements lie, channels last or not.
        return x * torch.as_strided(mask, x.size(), x.stride())
