"""The console of rich, where a reader that leaves does not end the program."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from jobs.io.whole_number import whole_number


class PipeSafeConsole(Console):
    """Ignores EPIPE, where rich would end the program, and a terminal's size in the environment that is no number."""

    def __init__(self, **options: Any) -> None:
        # Rich takes every digit that Unicode has for a number, and fails to read it.
        sizes = {name: os.environ[name] for name in ("COLUMNS", "LINES") if name in os.environ}
        unusable = {name for name, text in sizes.items() if not whole_number(text)}
        variables = {name: text for name, text in os.environ.items() if name not in unusable}
        super().__init__(**options, _environ=variables)

    def on_broken_pipe(self) -> None:
        self.quiet = True
