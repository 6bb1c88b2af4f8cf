"""Runs a command line as a process: streams, signals, exit code, and one line per expected error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from jobs.cli.commands import Program, build_app
from jobs.errors import JobError
from jobs.exit_codes import ExitCode
from jobs.io.memory_limit import out_of_memory
from jobs.io.stdio import escape_control_chars, flush_stdio, open_streams, stdout_error
from jobs.training.signals import ExitOnSignal
from jobs.training.termination_message import note_error, termination_message

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Program", "build_app", "exit_code_of", "run_program"]


def run_program(program: Program, arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; an expected error is one line on standard error."""
    open_streams()
    # Characters that the terminal's encoding lacks are written as escapes.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    exit_on_signal = ExitOnSignal()
    exit_on_signal.install()
    try:
        with termination_message(program.name) as summary:
            summary.exit_code = exit_code_of(program, sys.argv[1:] if arguments is None else arguments)
        flush_stdio()
        code: Any = summary.exit_code
        exit_on_signal.set_exit_code(code)
        if code == ExitCode.PEER_LOST:
            # When it is torn down, a framework may wait for the ranks that it was connected to.
            os._exit(code)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED_BY_KEYBOARD)
        exit_on_signal.set_exit_code(code)
    except SystemExit as system_exit:
        code = system_exit.code
        exit_on_signal.set_exit_code(code)
    sys.exit(code)


def exit_code_of(program: Program, arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; an error is printed as one line."""
    command = typer.main.get_command(build_app(program))
    try:
        result = command.main(args=list(arguments), prog_name=program.name, standalone_mode=False, obj=arguments)
    except JobError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted by SIGINT", ExitCode.INTERRUPTED_BY_KEYBOARD)
    except SystemExit as system_exit:
        if not isinstance(system_exit.__context__, BrokenPipeError):
            raise
        # The reader of standard output has closed it, as `| head` does. Typer treats that as an error.
        return int(ExitCode.DONE)
    except Exception as error:  # noqa: BLE001 - every error becomes a line and an exit code
        return _fail_with(error, program)
    return result if isinstance(result, int) else int(ExitCode.DONE)


def _fail_with(error: Exception, program: Program) -> int:
    if isinstance(error, OSError) and (printing_error := stdout_error(error)) is not None:
        return _fail(str(printing_error), printing_error.exit_code)
    # Typer contains a copy of click, so usage errors are recognised by a method, not by their class.
    format_message: Any = getattr(error, "format_message", None)
    if callable(format_message):
        command = getattr(getattr(error, "ctx", None), "command_path", program.name)
        message = " ".join(str(format_message()).split()).replace("Value error, ", "").rstrip(".")
        return _fail(f"{message}; see `{command} --help`" if message else "", ExitCode.BAD_INPUT)
    if (explained := out_of_memory(error)) is not None:
        return _fail(str(explained), explained.exit_code)
    with suppress(OSError):
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(escape_control_chars(line), file=sys.stderr)  # noqa: T201 - a defect is reported with these lines
    return _fail(f"unexpected {type(error).__name__}; please report it with the lines above", ExitCode.INTERNAL_ERROR)


def _fail(message: str, code: ExitCode) -> int:
    if message:
        note_error(message)
        with suppress(OSError):
            print(f"error: {escape_control_chars(message)}", file=sys.stderr)  # noqa: T201 - the one line a person sees
    return int(code)
