"""SIGTERM and SIGINT end a run between two steps, with its report; a second signal ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """A signal asked the run to end. It is no ``Exception``, so that libraries do not catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def exit_at_once_on_signals() -> None:
    """End the process at once on a signal. To be called before the slow imports, while there is nothing to lose."""
    # Registered first, so called last: otherwise a signal during Python's shutdown would change the exit code.
    atexit.register(_ignore_signals)
    for number in SIGNALS:
        signal.signal(number, _exit_at_once)


def exit_on_signals() -> None:
    """End the program on a signal as an error would, so that temporary files are removed; a second ends it at once."""
    for number in SIGNALS:
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
    exit_at_once_on_signals()
    _say_interrupted(number)
    raise SystemExit(128 + number)


def _exit_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
    _say_interrupted(number)
    os._exit(128 + number)


def _say_interrupted(number: int) -> None:
    if number == signal.SIGINT:
        with suppress(OSError):
            os.write(2, b"error: interrupted by SIGINT\n")


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class ExitOnSignal:
    """Ends the program on a signal, also as process 1 of a container, where SIGTERM has no effect by default.

    The first signal raises an exception, as Ctrl-C does in Python; a second one ends the process at once. After
    :meth:`set_exit_code` every signal ends it with that code.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._exit_code: int | None = None

    def install(self) -> None:
        exit_at_once_on_signals()
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def count_signal(self) -> None:
        """Count a signal that another handler received, so that the next one is the second."""
        self._signalled = True

    def set_exit_code(self, code: int) -> None:
        self._exit_code = code

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self._exit_code is not None:
            os._exit(self._exit_code)
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


class InterruptGuard:
    """While entered, turns the first signal into :class:`Interrupted`; a second one ends the program at once.

    Until :meth:`defer_interrupts` the handler raises it at once, since nothing is lost before training. From then on
    :meth:`check` raises it between two steps, since the handler could interrupt a framework's step.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._at_once = True
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]
            handler = getattr(previous, "__self__", None)
            if self._signal is not None and isinstance(handler, ExitOnSignal):
                handler.count_signal()

    def interrupt_immediately(self) -> None:
        self._at_once = True

    def defer_interrupts(self) -> None:
        self._at_once = False

    def pending(self) -> int | None:
        """The number of the signal that was received, if one was."""
        return self._signal

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal was received."""
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        if self._at_once:
            raise Interrupted(number)
