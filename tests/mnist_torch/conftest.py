"""Graphs of steps on a CPU: a stand-in takes the place of CUDA's streams and graphs."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs.mnist_torch.cuda_graph import StepGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StreamStandIn:
    def wait_stream(self, _: object) -> None:
        pass


@pytest.fixture
def cuda_stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps run where they are issued, and a replay runs the step that was captured; says what happened."""
    events: list[str] = []
    step_at_row: Callable[..., None] = StepGraph._step_at_row
    graphs: list[tuple[StepGraph, Any]] = []
    capturing: list[bool] = []

    def issue(self: StepGraph, step: Any) -> None:
        events.append("captured" if capturing else "ran")
        if capturing:
            graphs.append((self, step))
        else:
            step_at_row(self, step)

    class Graph:
        def replay(self) -> None:
            events.append("replayed")
            step_at_row(*graphs[-1])

    @contextmanager
    def capture(_: object) -> Iterator[None]:
        capturing.append(True)
        yield
        capturing.clear()

    monkeypatch.setattr(StepGraph, "_step_at_row", issue)
    monkeypatch.setattr(torch.cuda, "Stream", StreamStandIn)
    monkeypatch.setattr(torch.cuda, "current_stream", StreamStandIn)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return events
