"""A run's output on standard error: a progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.io.rich_console import PipeSafeConsole
from jobs.io.stdio import escape_control_chars, flush_stdio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.telemetry.types import LiveReading

PLAIN_INTERVAL_S: Final = 30.0
"""Time between two progress lines in a log."""

BAR_INTERVAL_S: Final = 0.2


class Console:
    """Lines and progress of one program. A log that cannot be written does not end the run."""

    def __init__(self, *, quiet: bool = False) -> None:
        """``quiet``: print nothing. Of several ranks only the first prints."""
        self._quiet = quiet
        self._rich = PipeSafeConsole(stderr=True, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        if self._quiet:
            return
        try:
            self._rich.print(escape_control_chars(text), markup=False, emoji=False)
        except OSError:
            # The text left in the buffer would make the next flush of standard error fail as well.
            flush_stdio()

    @contextmanager
    def epoch(self, label: str, steps: int, live: Callable[[], LiveReading]) -> Iterator[Callable[[int], None]]:
        """Show one epoch; the yielded function takes the number of steps done and may be called after every step."""
        if self._rich.is_terminal and not self._quiet:
            with self._bar(label, steps, live) as update:
                yield update
        else:
            yield self._plain(label, steps, live)

    @contextmanager
    def _bar(self, label: str, steps: int, live: Callable[[], LiveReading]) -> Iterator[Callable[[int], None]]:
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[gpu]}"), console=self._rich, transient=True) as progress:
            task = progress.add_task(label, total=steps, gpu="")
            due_s = time.monotonic()

            def update(done: int) -> None:
                nonlocal due_s
                if done < steps and time.monotonic() < due_s:
                    return
                due_s = time.monotonic() + BAR_INTERVAL_S
                progress.update(task, completed=done, gpu=live_text(live()))

            yield update

    def _plain(self, label: str, steps: int, live: Callable[[], LiveReading]) -> Callable[[int], None]:
        due_s = time.monotonic() + PLAIN_INTERVAL_S

        def update(done: int) -> None:
            nonlocal due_s
            if time.monotonic() < due_s:
                return
            due_s = time.monotonic() + PLAIN_INTERVAL_S
            self.line("  ".join(part for part in (label, f"step {done}/{steps}", live_text(live())) if part))

        return update


def live_text(reading: LiveReading) -> str:
    """GPU utilization, power and memory in one short text; empty if none is known."""
    parts = []
    if reading.gpu_util_percent is not None:
        parts.append(f"GPU busy {reading.gpu_util_percent:.0f} %")
    if reading.power_w is not None:
        parts.append(f"{reading.power_w:.0f} W")
    if reading.memory_used_bytes is not None:
        parts.append(f"{reading.memory_used_bytes / 2**30:.1f} GiB")
    return "  ".join(parts)
