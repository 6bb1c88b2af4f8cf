"""One training step as a CUDA graph: a whole step per launch, so that the host is out of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WARM_UP_STEPS = 3
"""torch asks for a few eager steps on a side stream first, so that lazy initialisation is not captured."""


class StepGraph:
    """Captures ``step(indices, count)`` once and replays it through an epoch.

    The epoch's batches lie in static buffers and a counter on the device picks the row, so a replay needs nothing
    from the host. Warming up trains for a few steps; weights, optimizer state and random numbers are put back.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor], None],
        optimizer: torch.optim.Optimizer,
        indices: Tensor,
        counts: Tensor,
    ) -> None:
        self._indices = indices.clone()
        self._counts = counts.clone()
        self._row = torch.zeros(1, dtype=torch.int64, device=indices.device)
        self._graph = torch.cuda.CUDAGraph()
        self._warm_up(step, optimizer)
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self._step_at_row(step)

    def start_epoch(self, indices: Tensor, counts: Tensor, done: int = 0) -> None:
        """Take up an epoch's batches, of which ``done`` are behind us."""
        self._indices.copy_(indices)
        self._counts.copy_(counts)
        self._row.fill_(done)

    def replay(self) -> None:
        self._graph.replay()

    def _step_at_row(self, step: Callable[[Tensor, Tensor], None]) -> None:
        row = self._indices.index_select(0, self._row).squeeze(0)
        step(row, self._counts.index_select(0, self._row).squeeze(0))
        self._row.add_(1)

    def _warm_up(self, step: Callable[[Tensor, Tensor], None], optimizer: torch.optim.Optimizer) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        saved_weights = [weight.detach().clone() for weight in weights]
        saved_state = {id(tensor): tensor.clone() for tensor in _state_tensors(optimizer)}
        random_state = torch.cuda.get_rng_state(self._row.device)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step_at_row(step)
                self._row.zero_()
        torch.cuda.current_stream().wait_stream(stream)

        with torch.no_grad():
            for weight, saved in zip(weights, saved_weights, strict=True):
                weight.copy_(saved)
            for tensor in _state_tensors(optimizer):
                # State that only the warm-up created starts from zero, as an optimizer's does.
                saved = saved_state.get(id(tensor))
                tensor.zero_() if saved is None else tensor.copy_(saved)
        torch.cuda.set_rng_state(random_state, self._row.device)


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    holders = [*optimizer.state.values(), *optimizer.param_groups]
    return [value for holder in holders for value in holder.values() if isinstance(value, torch.Tensor)]
