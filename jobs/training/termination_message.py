"""The termination message: one line that Kubernetes keeps of an ended container, for ``kubectl describe pod``.

It is written to the file in ``MNIST_JOBS_TERMINATION_MESSAGE_PATH``, if that is set.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import __version__
from jobs.exit_codes import ExitCode
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jobs.report import Report

PATH_VARIABLE: Final = "MNIST_JOBS_TERMINATION_MESSAGE_PATH"

LIMIT_BYTES: Final = 4096
"""The kubelet's limit. Of a longer message it keeps only the end, which is no valid JSON."""

_current: ContextVar[Summary | None] = ContextVar("termination_summary", default=None)


class Summary:
    """A program's result for the termination message; :attr:`exit_code` is ``None`` while it runs."""

    def __init__(self, program: str) -> None:
        self.exit_code: int | None = None
        self._program = program
        self._errors: list[str] = []
        self._machine: dict[str, Any] = {}
        self._runs: list[dict[str, Any]] = []

    def add_error(self, text: str) -> None:
        self._errors.append(escape_control_chars(" ".join(text.split())))

    def add_report(self, report: Report) -> None:
        kubernetes, results = report.environment.kubernetes, report.results
        self._machine = {
            "node": kubernetes.node if kubernetes else None,
            "index": kubernetes.index if kubernetes else None,
            "devices": [{"name": d.name, "uuid": d.uuid, "mig_uuid": d.mig_uuid} for d in report.devices],
            "driver_version": report.environment.driver_version,
        }
        self._runs.append(
            {
                "run_id": report.run_id,
                "status": report.status,
                "status_reason": report.status_reason,
                "seed": report.config.seed,
                "test_accuracy_ratio": results.test_accuracy_ratio,
                "train_wall_s": results.train_wall_s,
                "steady_images_per_s": results.steady_images_per_s,
            }
        )

    def line(self) -> str:
        """The message, a JSON object of at most :data:`LIMIT_BYTES`; the oldest runs are dropped first."""
        runs, error = list(self._runs), "; ".join(self._errors)
        while len((line := self._line(runs, error)).encode()) > LIMIT_BYTES and (runs or error):
            if runs:
                del runs[0]
            else:
                error = error[: len(error) // 2]
        return line

    def _line(self, runs: list[dict[str, Any]], error: str) -> str:
        content = {
            "program": self._program,
            "version": __version__,
            "exit_code": self.exit_code,
            "meaning": next((code.meaning for code in ExitCode if code == self.exit_code), None),
            "error": error or None,
            **self._machine,
            "runs_by_status": Counter(run["status"] for run in self._runs),
            "runs_left_out": len(self._runs) - len(runs),
            "runs": runs,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # JSON has no need to escape C1 controls and marks of direction, and `kubectl describe` shows the line as it is.
        return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


@contextmanager
def termination_message(program: str, variables: Mapping[str, str] = os.environ) -> Iterator[Summary]:
    """Collect a summary and write it at the end, also when ``SystemExit`` is raised.

    If it cannot be written, a warning goes to standard error.
    """
    summary = Summary(program)
    token = _current.set(summary)
    try:
        yield summary
    except SystemExit as leaving:
        summary.exit_code = leaving.code if isinstance(leaving.code, int) else int(ExitCode.INTERNAL_ERROR)
        raise
    finally:
        _current.reset(token)
        path = variables.get(PATH_VARIABLE)
        if path:
            _write(Path(path), summary.line())


def note_report(report: Report) -> None:
    """Add a finished run to the termination message."""
    if (summary := _current.get()) is not None:
        summary.add_report(report)


def note_error(text: str) -> None:
    """Add an error line to the termination message."""
    if (summary := _current.get()) is not None:
        summary.add_error(text)


def _write(path: Path, line: str) -> None:
    try:
        # Written in place: the kubelet mounts this one file, so it cannot be replaced.
        # Opening a pipe that nobody reads would wait for ever.
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o644)) as file:
            file.write(line.encode())
    except OSError as error:
        reason = error.strerror or error
        print(f"warning: termination message {str(path)!r} cannot be written ({reason})", file=sys.stderr)  # noqa: T201
