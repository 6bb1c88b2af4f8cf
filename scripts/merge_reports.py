"""Merge the reports of runs into one comparison: a table here, comparison.json, comparison.md and more in a folder."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the slow imports below. It imports this file once more, under another name.
    from jobs.cli.start import run_script

    run_script(__file__)

import gc
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.comparison.output.write import check_outputs, output_files, write
from jobs.comparison.text import pluralize
from jobs.errors import FrameworkMissing, JobError
from jobs.exit_codes import ExitCode
from jobs.io.rich_console import PipeSafeConsole
from jobs.io.stdio import escape_control_chars, flush_stdio, stdout_error
from jobs.training.signals import exit_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.comparison.input.load import Loaded
    from jobs.errors import NotWritable

WARNINGS_SHOWN = 20
GATE_CODES = {"regression": ExitCode.REGRESSION, "incomparable": ExitCode.NOT_COMPARABLE}


def merge(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Report files, folders with reports and logs, *.log files, or - for a log on standard input.",
        ),
    ] = None,
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-o", metavar="DIR", help="Where comparison.json, .md, .html and runs.csv go."),
    ] = Path("comparison"),
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="A field that differs on purpose, by its path in the report; repeatable."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="Earlier reports to compare with; exit code 11 if these are worse. Repeatable."
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FRAMEWORK=]N",
            help="Runs of each framework that were started, such as a Job's completions; missing ones count as failed.",
        ),
    ] = None,
) -> None:
    """Merge the reports of runs into one comparison.

    Reports that are not comparable are refused, and the fields that differ are named. With --baseline the exit code
    says whether these runs are worse than the earlier ones, or not comparable with them.
    """
    try:
        _merge(paths or [], output_dir, allow or [], baseline or [], expect or [])
    except JobError as error:
        _print_error(f"error: {error}")
        raise typer.Exit(error.exit_code) from error


def _merge(paths: list[str], output_dir: Path, allow: list[str], baseline_paths: list[str], expect: list[str]) -> None:
    with _compare_extra():
        from jobs.comparison.analysis.expected import parse_expected  # noqa: PLC0415
        from jobs.comparison.input.load import load  # noqa: PLC0415
    expected = parse_expected(expect)
    # Checked before thousands of reports are read.
    check_outputs(output_dir)
    written_by_us = output_files(output_dir)
    loaded = load(paths, sys.stdin.buffer, leave_out=written_by_us)
    _warn(loaded)
    baseline = load(baseline_paths, sys.stdin.buffer, leave_out=written_by_us) if baseline_paths else None
    if baseline is not None:
        _warn(baseline)
    with _compare_extra():
        # Imported after the input is checked, since SciPy takes a while to import.
        from jobs.comparison.build import build  # noqa: PLC0415
        from jobs.comparison.output.html.page import render_html  # noqa: PLC0415
        from jobs.comparison.output.html.timelines import timelines  # noqa: PLC0415
        from jobs.comparison.output.markdown import render_markdown  # noqa: PLC0415
        from jobs.comparison.output.terminal import render_terminal  # noqa: PLC0415
    comparison = build(loaded, allow=allow, baseline=baseline, expected=expected)
    html = render_html(comparison, timelines(loaded.runs))
    written = write(comparison, render_markdown(comparison), html, output_dir)
    *first, last = (escape_control_chars(str(path)) for path in written)
    with _printing() as failure:
        render_terminal(comparison, PipeSafeConsole())
        typer.echo(f"{pluralize(len(loaded.runs), 'run')} merged into {', '.join(first)} and {last}")
    if comparison.gate is not None:
        code = GATE_CODES.get(comparison.gate.outcome, ExitCode.DONE)
        if code != ExitCode.DONE:
            raise typer.Exit(code)
    # The gate's code has priority, since the files contain what could not be printed.
    for error in failure:
        raise error


@contextmanager
def _printing() -> Iterator[list[NotWritable]]:
    """Collect the error of a standard output that cannot be written, unless its reader has closed it."""
    failure: list[NotWritable] = []
    try:
        yield failure
    except OSError as error:
        not_written = stdout_error(error)
        if not_written is not None:
            failure.append(not_written)
        elif not isinstance(error, BrokenPipeError):
            raise


@contextmanager
def _compare_extra() -> Iterator[None]:
    """Turn a missing package of the extra ``compare`` into an error that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise FrameworkMissing(
            f"the comparison needs {error.name}, which is not installed in this environment; "
            "use the project's .venv (make envs), or install mnist-jobs[compare]"
        ) from error


def _warn(loaded: Loaded) -> None:
    for skipped in loaded.skipped[:WARNINGS_SHOWN]:
        what = f"{skipped.source}: {skipped.reason}"
        if skipped.lines:
            more = ", …" if skipped.count > len(skipped.lines) else ""
            what += f" ({pluralize(skipped.count, 'line')}: {', '.join(map(str, skipped.lines))}{more})"
        _print_error(f"warning: skipped {what}")
    if len(loaded.skipped) > WARNINGS_SHOWN:
        _print_error(f"warning: skipped {len(loaded.skipped) - WARNINGS_SHOWN} more; comparison.json lists all")
    if loaded.copies:
        _print_error(
            f"note: {pluralize(loaded.copies, 'report')} found again, by run id and attempt; each run counts once"
        )
    died = [run for run in loaded.runs if not run.has_report]
    for run in died[:WARNINGS_SHOWN]:
        reason = f"it has no report and counts as {run.status}: {run.status_reason}"
        _print_error(f"warning: {run.run_id} ({run.source}): {reason}")
    if len(died) > WARNINGS_SHOWN:
        _print_error(f"warning: {len(died) - WARNINGS_SHOWN} more runs without a report; runs.csv lists all")


def _print_error(text: str) -> None:
    # Line breaks are this program's own, in a refusal that lists fields; control characters of reports are escaped.
    with suppress(OSError):
        typer.echo("\n".join(escape_control_chars(line) for line in text.split("\n")), err=True)


def main() -> None:
    """Run the command line and leave with its exit code."""
    exit_on_signals()
    # A merge creates no large reference cycles, and the search for them takes a third of its time.
    gc.disable()
    # NumPy's import reads it and fails if it is no number.
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks becomes a question mark.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(merge)
    try:
        app()
    except SystemExit as exiting:
        if not isinstance(exiting.__context__, BrokenPipeError):
            raise
        # The reader of standard output has closed it, as `| head` does; typer exits with an error of its own.
    except OSError as error:
        not_written = stdout_error(error)
        if not_written is None:
            raise
        _print_error(f"error: {not_written}")
        sys.exit(not_written.exit_code)
    finally:
        flush_stdio()
