"""The console of rich, where a reader that leaves does not end the program."""

from __future__ import annotations

from rich.console import Console


class PipeSafeConsole(Console):
    """Ignores EPIPE; rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
