"""SIGTERM and SIGINT end a run between two steps, with its report; a second signal ends it at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal asked the run to end; no library's ``except Exception`` is to take it for an error of its own."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def leave_on_sigterm() -> None:
    """End the program with code 143 on SIGTERM, which process 1 of a container would otherwise ignore."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
    raise SystemExit(128 + number)


class InterruptGuard:
    """While entered, takes signals instead of dying of them; a second one ends the program at once.

    Until :meth:`wait_for_checks` the first signal raises :class:`Interrupted` where the program stands, since nothing
    is lost before training. From then on it is noted, and :meth:`check` raises it where it is safe: an exception from
    the handler itself could tear the program out of a framework's step.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._at_once = True
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]

    def raise_at_once(self) -> None:
        self._at_once = True

    def wait_for_checks(self) -> None:
        self._at_once = False

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        if self._at_once:
            raise Interrupted(number)
