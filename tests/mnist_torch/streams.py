"""Streams that record their order, on a CPU: work on one stream must have waited for what it needs from another.

CUDA runs the work of one stream in order, and that of several at the same time. What a stream must have waited for is
kept as in a vector clock. A replay works on the current stream. ``torch.cuda.graph`` synchronises the device before it
captures; this is not counted on.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class Stream:
    """A stream with the number of its operations, and how many of each other stream's it has waited for."""

    def __init__(self) -> None:
        self.operations = 0
        self._waited: dict[Stream, int] = {}

    def wait_stream(self, other: Stream) -> None:
        for stream, operations in (other._waited | {other: other.operations}).items():
            self._waited[stream] = max(self._waited.get(stream, 0), operations)

    def has_waited(self, other: Stream, operations: int) -> bool:
        return other is self or self._waited.get(other, 0) >= operations


class StreamOrder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails where an operation uses what another stream wrote, or changes what another stream uses, without a wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = Stream()
        self.streams = {self.current}
        # By storage: the operation that wrote it, and those that have read it since.
        self._written: dict[int, tuple[Stream, int]] = {}
        self._read: dict[int, list[tuple[Stream, int]]] = defaultdict(list)
        self._storages: list[torch.UntypedStorage] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(one, (kwargs or {}).get(one.name)) for one in func._schema.arguments[len(args) :]]
        result = func(*args, **(kwargs or {}))
        stream, at = self.current, (self.current, self.current.operations + 1)
        writes = [value for one, value in given if one.alias_info and one.alias_info.is_write]
        changed, used = self._ids(writes), self._ids([value for _, value in given])
        for storage in used:
            earlier = [self._written[storage]] if storage in self._written else []
            earlier += self._read[storage] if storage in changed else []
            for other, operations in earlier:
                assert stream.has_waited(other, operations), f"{func} uses a tensor of another stream without waiting"
        stream.operations += 1
        for storage in used - changed:
            self._read[storage].append(at)
        for storage in changed | (self._ids(result) - used):
            self._written[storage], self._read[storage] = at, []
        return result

    def _ids(self, value: Any) -> set[int]:
        storages = [one.untyped_storage() for one in tree_leaves(value) if isinstance(one, torch.Tensor)]
        # Kept, so that no later tensor gets the same address: CUDA's allocator keeps each stream's memory apart.
        self._storages += storages
        return {storage._cdata for storage in storages}


@contextmanager
def stream_order(patch: pytest.MonkeyPatch) -> Iterator[StreamOrder]:
    """Let torch's streams be those of this module, and watch each operation inside."""
    order = StreamOrder()

    @contextmanager
    def work_on(stream: Stream) -> Iterator[None]:
        before, order.current = order.current, stream
        order.streams.add(stream)
        yield
        order.current = before

    patch.setattr(torch.cuda, "Stream", Stream)
    patch.setattr(torch.cuda, "current_stream", lambda: order.current)
    patch.setattr(torch.cuda, "stream", work_on)
    with order:
        yield order
