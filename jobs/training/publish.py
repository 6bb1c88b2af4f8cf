"""Publishes a run's report: file, standard output, Prometheus file, termination message, console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.errors import NotWritable
from jobs.io.stdio import flush_stdio
from jobs.report import to_line, write
from jobs.report.measuring import GPU_FIGURES, is_too_short, too_short_text
from jobs.training.prometheus import write_textfile
from jobs.training.termination_message import note_report

if TYPE_CHECKING:
    from jobs.report import Report
    from jobs.training.console import Console
    from jobs.training.options import TrainRequest


def publish(report: Report, request: TrainRequest, console: Console, *, again: bool = False) -> None:
    """Write the report into ``request.report_dir``, print it, and say where it is.

    ``again``: the run finished earlier; its report is written only if the file is missing.

    Raises:
        NotWritable: a file could not be written. The report is then on standard output.
    """
    note_report(report)
    line = to_line(report)
    path = request.report_dir / f"{report.run_id}-a{report.attempt}.json"
    try:
        if not (again and path.exists()):
            path = write(report, request.report_dir)
    except NotWritable:
        _print_line(line, on_terminal=True)
        raise
    error = _print_line(line, on_terminal=False)
    if error is not None:
        console.line(f"the report's line could not be printed ({error.strerror or error}); the report file has it")
    if request.metrics_textfile is not None:
        write_textfile(report, request.metrics_textfile)
    if report.status_reason is not None:
        console.line(f"{report.status}: {report.status_reason}")
    speed = report.results.steady_images_per_s
    if speed is not None:
        console.line(f"steady training: {speed:,.0f} images/s")
    if (training := report.training) is not None and any(is_too_short(report, name) for name in GPU_FIGURES):
        config = report.config
        short = too_short_text(training.duration_s, repeat=config.repeat, epochs=config.epochs)
        console.line(f"GPU figures {short}")
    console.line(f"report: {path}")


def _print_line(line: str, *, on_terminal: bool) -> OSError | None:
    """Print the marked line, which a pod's log keeps; return the error if that was not possible."""
    try:
        if on_terminal or not sys.stdout.isatty():
            print(line, flush=True)  # noqa: T201 - standard output is the interface here
    except OSError as error:
        flush_stdio()
        return error
    return None
