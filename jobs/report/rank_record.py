"""What one rank of a run prints into its own log, so that a run whose rank 0 died is counted and can be read."""

from typing import Any, Final, Self

from pydantic import Field

from jobs.report.configuration import Instant, Kubernetes, Model, Number, RunId
from jobs.report.ranks import RankPart
from jobs.report.schema import SchemaVersion
from jobs.report.started import StartedConfig

RANK_MARKER: Final = "MNIST_JOBS_RANK "
"""The start of its line in a log, after any prefix of the log."""


class RankRecord(Model):
    """One rank of a run, so far. A later line of the same rank and attempt replaces an earlier one."""

    schema_version: SchemaVersion
    run_id: RunId
    attempt: Number
    started_at_utc: Instant = Field(description="of rank 0, as in its report")
    ranks: Number = Field(description="how many ranks the run has")
    ended: bool = Field(description="false while it trains")
    config: StartedConfig
    kubernetes: Kubernetes | None
    part: RankPart

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """The record in ``data``, parsed JSON, read as strictly as a report.

        Raises:
            ValidationError: it is no such record, or of a schema version that cannot be read.
        """
        return cls.model_validate(data, strict=True)

    def to_line(self) -> str:
        """One marked line for a log, in ASCII, whatever the log's encoding is."""
        return RANK_MARKER + self.model_dump_json(ensure_ascii=True)
