"""The record that a run has started. It stays where the run dies before its report, so that the run is counted.

Earlier releases of the comparison ignore its file and its log line.
"""

from typing import Any, Final, Literal, Self

from pydantic import Field

from jobs.choices import FrameworkName, Reduction, Scaling, TrainingProtocol
from jobs.report.configuration import Count, Design, Instant, Kubernetes, Model, Number, RunId
from jobs.report.schema import SchemaVersion

STARTED_SUFFIX: Final = ".started"
"""Its file is beside the report's, with this instead of ``.json``."""
STARTED_MARKER: Final = "MNIST_JOBS_STARTED "
"""The start of its line in a log, after any prefix of the log."""


class StartedConfig(Model):
    """The settings that are known before the framework is loaded; named as in the report."""

    recipe: str
    protocol: TrainingProtocol
    framework: FrameworkName
    seed: Count
    epochs: Count
    design: Design | None = None
    ranks: Number = 1
    reduction: Reduction | None = None
    scaling: Scaling | None = None


class StartedRun(Model):
    """One run that has started; ``status`` is ``started`` while it runs, and for ever if it is killed."""

    schema_version: SchemaVersion
    run_id: RunId = Field(description="the run that its checkpoints belong to, where it has any, as their names say")
    attempt: Number
    status: Literal["started", "interrupted", "failed", "refused"] = Field(
        description="refused: what was asked for cannot be run, so there was no run"
    )
    status_reason: str | None = Field(description="one line; null while it is only started")
    started_at_utc: Instant = Field(description="the report of the same run has the same time")
    config: StartedConfig
    kubernetes: Kubernetes | None

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """The record in ``data``, parsed JSON, read as strictly as a report.

        Raises:
            ValidationError: it is no such record, or of a schema version that cannot be read.
        """
        return cls.model_validate(data, strict=True)

    @property
    def file_name(self) -> str:
        return f"{self.run_id}-a{self.attempt}{STARTED_SUFFIX}"

    def to_line(self) -> str:
        """One marked line for a log, in ASCII, whatever the log's encoding is."""
        return STARTED_MARKER + self.model_dump_json(ensure_ascii=True)
