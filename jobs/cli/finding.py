"""One line of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from jobs.exit_codes import ExitCode

if TYPE_CHECKING:
    from jobs.errors import JobError


@dataclass(frozen=True)
class Finding:
    """A ``note`` does not fail a job."""

    status: Literal["ok", "note", "fail"]
    subject: str
    text: str
    exit_code: ExitCode = ExitCode.DONE

    @classmethod
    def failure(cls, subject: str, error: JobError) -> Self:
        return cls("fail", subject, str(error), error.exit_code)
