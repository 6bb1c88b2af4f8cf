"""SIGTERM and SIGINT end a run between two steps, with its report; a second signal ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal asked the run to end; no library's ``except Exception`` is to take it for an error of its own."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def leave_at_once_on_signals() -> None:
    """End the process on a signal, before anything is at stake: what takes long to import comes after this."""
    # Registered first, so called last: Python would give its own handlers back and die of a signal after its end.
    atexit.register(_ignore_signals)
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
    if number == signal.SIGINT:
        with suppress(OSError):
            os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(128 + number)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Ending:
    """How the program ends on a signal, also as process 1 of a container, which would otherwise ignore SIGTERM.

    The first unwinds the program, as Ctrl-C does in Python; a second ends it there and then. Once its exit code
    stands, that is the code whatever comes.
    """

    def __init__(self) -> None:
        self._warned = False
        self._code: int | None = None

    def take_signals(self) -> None:
        leave_at_once_on_signals()
        for number in SIGNALS:
            signal.signal(number, self._take)

    def next_ends_it(self) -> None:
        """One signal has been taken by somebody else."""
        self._warned = True

    def stands(self, code: int) -> None:
        self._code = code

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self._code is not None or self._warned:
            os._exit(128 + number if self._code is None else self._code)
        self._warned = True
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


class InterruptGuard:
    """While entered, takes signals instead of dying of them; a second one ends the program at once.

    Until :meth:`defer_interrupts` the first signal raises :class:`Interrupted` where the program stands, since nothing
    is lost before training. From then on it is noted, and :meth:`check` raises it where it is safe: an exception from
    the handler itself could tear the program out of a framework's step.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._at_once = True
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]
            ending = getattr(previous, "__self__", None)
            if self._signal is not None and isinstance(ending, Ending):
                ending.next_ends_it()

    def interrupt_immediately(self) -> None:
        self._at_once = True

    def defer_interrupts(self) -> None:
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
