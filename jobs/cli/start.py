"""The start of the programs. Signals, closed streams and too little memory are handled before the slow imports."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from jobs.io.memory_limit import out_of_memory, require_room_for_libraries
from jobs.io.stdio import escape_control_chars, open_streams
from jobs.training.signals import exit_at_once_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable


def mnist_tf() -> None:
    _run(lambda: import_module("jobs.mnist_tf.cli"))


def mnist_torch() -> None:
    _run(lambda: import_module("jobs.mnist_torch.cli"))


def run_script(path: str) -> None:
    """Import the script ``path``, run its ``main`` and end the program; to be called before the script's own imports.

    A signal ends it at once: 143 or 130, and one line for Ctrl-C.
    """
    sys.exit(_run(lambda: _load_script(path)))


def _run(load: Callable[[], Any]) -> Any:
    """Run ``main`` of the module that ``load`` imports."""
    exit_at_once_on_signals()
    open_streams()
    try:
        require_room_for_libraries()
        return load().main()
    except Exception as error:
        explained = out_of_memory(error)
        if explained is None:
            raise
        with suppress(OSError):
            print(f"error: {escape_control_chars(str(explained))}", file=sys.stderr)  # noqa: T201 - for the user
        sys.exit(explained.exit_code)


def _load_script(path: str) -> Any:
    spec = spec_from_file_location("script", path)
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules["script"] = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
