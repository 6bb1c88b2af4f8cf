"""Records that a run has started, so that one that dies before its report is counted all the same."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

from jobs.checkpoint.store import next_attempt
from jobs.errors import BadInput, FrameworkMissing, PeerLost
from jobs.io.atomic_file import write_file
from jobs.io.stdio import escape_control_chars, flush_stdio
from jobs.recipes import RECIPES
from jobs.report import SCHEMA_VERSION
from jobs.report.started import StartedConfig, StartedRun
from jobs.training.environment import read_kubernetes
from jobs.training.failure import failure_reason
from jobs.training.request import checkpoint_folder, parse_design
from jobs.training.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from jobs.choices import FrameworkName
    from jobs.training.console import Console
    from jobs.training.options import TrainRequest

_RUN_ID_PREFIX: Final[dict[FrameworkName, str]] = {"tensorflow": "tf", "torch": "torch"}


class StartedRecord:
    """The record of one run, as a file in the report folder and as a line on standard error, which a pod's log keeps.

    ``run_id`` is the one that the run has if it resumes no other.
    """

    def __init__(
        self,
        request: TrainRequest,
        framework: FrameworkName,
        *,
        seed: int,
        started_at: datetime,
        console: Console,
        enabled: bool = True,
    ) -> None:
        """``enabled``: whether anything is recorded. Of several ranks only the first records the run."""
        self.started_at = started_at
        self.run_id = _new_run_id(request, framework, seed, started_at)
        run_id, attempt = next_attempt(checkpoint_folder(request, seed)) or (self.run_id, 1)
        self._folder, self._console = request.report_dir, console
        self._removed = not enabled
        self._run = StartedRun(
            schema_version=SCHEMA_VERSION,
            run_id=run_id,
            attempt=attempt,
            status="started",
            status_reason=None,
            started_at_utc=started_at,
            config=StartedConfig(
                recipe=request.recipe,
                protocol=request.protocol,
                framework=framework,
                seed=seed,
                epochs=RECIPES[request.recipe].epochs if request.epochs is None else request.epochs,
                design=parse_design(request.design) if request.design else None,
                ranks=request.ranks,
                reduction=request.reduction,
                scaling=request.scaling,
            ),
            kubernetes=read_kubernetes(os.environ),
        )

    @property
    def run(self) -> StartedRun:
        return self._run

    @property
    def path(self) -> Path:
        return self._folder / self._run.file_name

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the start of the run, and at the end why no report followed, unless the record was removed."""
        self.write()
        try:
            yield
        except (BadInput, FrameworkMissing) as error:
            self.end("refused", failure_reason(error))
            raise
        except Interrupted as interruption:
            self.end("interrupted", f"{interruption} before training began")
            raise
        except Exception as error:
            interrupted = isinstance(error, PeerLost) and error.is_interruption
            self.end("interrupted" if interrupted else "failed", failure_reason(error))
            raise

    def write(self) -> None:
        """Write the file and print the line. An error costs the record only, and not the run."""
        if self._removed:
            return
        try:
            write_file((self._run.model_dump_json(indent=2) + "\n").encode(), self.path)
        except OSError as error:
            self._console.line(
                f"the run's start cannot be recorded in {str(self.path)!r} ({error.strerror or error}): "
                "if it is killed, only its log shows that it was"
            )
        self._print_line()

    def end(self, status: Literal["interrupted", "failed", "refused"], reason: str) -> None:
        """Note why no report follows; a run that was refused leaves no file. Does nothing after :meth:`remove`."""
        if self._removed:
            return
        changes = {"status": status, "status_reason": escape_control_chars(reason)}
        self._run = self._run.model_copy(update=changes)
        if status == "refused":
            self.remove()
            self._print_line()
        else:
            self.write()

    def remove(self) -> None:
        """Remove the file, since the report is written."""
        if self._removed:
            return
        self._removed = True
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _print_line(self) -> None:
        try:
            if not sys.stderr.isatty():
                print(self._run.to_line(), file=sys.stderr, flush=True)  # noqa: T201 - the log is the interface here
        except OSError:
            flush_stdio()


def _new_run_id(request: TrainRequest, framework: FrameworkName, seed: int, started_at: datetime) -> str:
    stamp, prefix = started_at.strftime("%Y%m%dT%H%M%SZ"), _RUN_ID_PREFIX[framework]
    return f"{stamp}-{prefix}-{request.recipe}-{request.protocol}-s{seed}-{secrets.token_hex(3)}"
