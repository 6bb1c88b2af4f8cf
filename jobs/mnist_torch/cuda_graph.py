"""One training step as a CUDA graph: one launch per step, to minimize the host's overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WARM_UP_STEPS: Final = 3
"""torch requires a few eager steps on a side stream first, so that lazy initialisation is not captured."""


class StepGraph:
    """Captures ``step(row)`` once and replays it through an epoch.

    The epoch's rows, one for each step, are in a static buffer, and a counter on the device selects the row, so a
    replay needs no data from the host. The warm-up trains a few steps; ``restore`` then resets all that a step changes,
    in place.
    """

    def __init__(self, step: Callable[[Tensor], None], rows: Tensor, *, restore: Callable[[], None]) -> None:
        self._rows = rows.clone()
        self._row = torch.zeros(1, dtype=torch.int64, device=rows.device)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step_at_row(step)
                self._row.zero_()
        torch.cuda.current_stream().wait_stream(stream)
        restore()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step_at_row(step)

    def start_epoch(self, rows: Tensor, done: int = 0) -> None:
        """Load an epoch's rows and skip the first ``done``."""
        self._rows.copy_(rows)
        self._row.fill_(done)

    def replay(self) -> None:
        self._graph.replay()

    def _step_at_row(self, step: Callable[[Tensor], None]) -> None:
        step(self._rows.index_select(0, self._row).squeeze(0))
        self._row.add_(1)
