"""Runs that started and have no report: they died before it, and count as failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.fields import ENVIRONMENT, FIELDS
from jobs.comparison.input.metrics import METRICS, Missing, pack_measured
from jobs.comparison.input.parse import parse_document
from jobs.comparison.input.rank_records import RankRecords, progress_text, work_of_died
from jobs.comparison.input.run_summary import ReportLocation, RunSummary, cut
from jobs.comparison.rank_setting import RankSetting
from jobs.report.started import StartedRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.input.rank_records import RankLine
    from jobs.report.rank_record import RankRecord
    from jobs.report.schema import Dataset

NO_REPORT: Final = "no report followed: killed, lost with its node, or still running"
_NODE: Final = "environment.kubernetes.node"


def parse_started(raw: bytes, *, origin: str) -> StartedRun:
    """Turn JSON into a started record; ``origin`` names it in errors.

    Raises:
        InvalidReport: not strict JSON, not a started record, or of a schema version this release cannot read.
    """
    return parse_document(StartedRun, raw, origin=origin, what="started record")


@dataclass
class StartedRuns:
    """The started records that a merge has read, each attempt once; ``records`` counts all, copies included.

    ``ranks`` are the log lines of their ranks.
    """

    records: int = 0
    ranks: RankRecords = field(default_factory=RankRecords)
    _found: dict[tuple[str, int], tuple[StartedRun, str, bytes]] = field(default_factory=dict)

    def add(self, run: StartedRun, *, source: str, raw: bytes) -> None:
        """Keep ``run``, or of two records of one attempt the one that says how it ended, then the first by name."""
        self.records += 1
        key = run.run_id, run.attempt
        records = [(run, source, raw), *([self._found[key]] if key in self._found else [])]
        self._found[key] = min(records, key=lambda record: (record[0].status == "started", record[1]))

    def without_report(self, reported: Iterable[RunSummary], dataset: Dataset) -> list[RunSummary]:
        """The runs none of whose attempts is in ``reported``, as failed runs on ``dataset``, which they do not name."""
        found = self._with_ranks()
        if not found:
            # The sets below would take memory for each of perhaps a hundred thousand reports.
            return []
        reported = list(reported)
        ids = {run.identity for run in reported}
        # A record has the time of its run's start. Its run id is a guess where the run was resumed.
        starts = {(run.started_at_utc, *run.identity[1:]) for run in reported}
        return [
            run
            for started, source, raw, lines in found
            if started.status != "refused"
            and (run := _summarize(started, source=source, raw=raw, lines=lines, dataset=dataset)).identity not in ids
            and (run.started_at_utc, *run.identity[1:]) not in starts
        ]

    def _with_ranks(self) -> list[tuple[StartedRun, str, bytes, Sequence[RankLine]]]:
        """Each attempt with the lines of its ranks. One that is known from lines only has no started record."""
        found = dict(self._found)
        by_start = {_start(started): key for key, (started, _, _) in found.items()}
        joined: list[tuple[StartedRun, str, bytes, Sequence[RankLine]]] = []
        for (run_id, attempt), lines in self.ranks.by_attempt().items():
            first = lines[0].record
            # A started record's id is a guess where the run was resumed; the lines have the id of the run.
            key = next((key for key in ((run_id, attempt), by_start.get(_start(first))) if key in found), None)
            started, source, raw = (_started_of(first), lines[0].source, b"") if key is None else found.pop(key)
            started = started.model_copy(update={"run_id": run_id, "attempt": attempt})
            joined.append((started, source, b"\n".join([raw, *(line.raw for line in lines)]), lines))
        return [*((*record, ()) for record in found.values()), *joined]


def _start(record: StartedRun | RankRecord) -> tuple[Any, ...]:
    config = record.config
    return record.started_at_utc, config.recipe, config.protocol, config.framework, config.seed


def _started_of(record: RankRecord) -> StartedRun:
    return StartedRun(
        schema_version=record.schema_version,
        run_id=record.run_id,
        attempt=record.attempt,
        status="started",
        status_reason=None,
        started_at_utc=record.started_at_utc,
        config=record.config,
        kubernetes=None,
    )


def _summarize(
    started: StartedRun, *, source: str, raw: bytes, lines: Sequence[RankLine], dataset: Dataset
) -> RunSummary:
    config, kubernetes = started.config, started.kubernetes
    node = None if kubernetes is None else cut(kubernetes.node)
    progress = progress_text(lines) if lines else None
    ranks = lines[0].record.ranks if lines else config.ranks
    setting = RankSetting(ranks=ranks, reduction=config.reduction, scaling=config.scaling)
    packed_measured, missing = pack_measured({metric.name: Missing("the run has no report") for metric in METRICS})
    return RunSummary(
        run_id=started.run_id,
        attempt=started.attempt,
        status="interrupted" if started.status == "interrupted" else "failed",
        status_reason=cut("; ".join(filter(None, (started.status_reason or NO_REPORT, progress)))),
        started_at_utc=started.started_at_utc,
        finished_at_utc=started.started_at_utc,
        recipe=cut(config.recipe),
        protocol=config.protocol,
        framework=config.framework,
        framework_version=None,
        seed=config.seed,
        rank_setting=setting,
        index=None if kubernetes is None or setting.is_several else kubernetes.index,
        dataset=dataset,
        compared=(None,) * len(FIELDS),
        environment=tuple(node if field.path == _NODE else None for field in ENVIRONMENT),
        node=node,
        gpu_uuids=(),
        packed_measured=packed_measured,
        missing=missing,
        packed_readings=b"",
        epochs=config.epochs,
        repeat=1,
        between_ratio=0.0,
        packed_epochs=b"",
        phases=(),
        packed_phases_s=b"",
        warnings=(),
        suspect_of=(),
        unchecked=(),
        design=config.design,
        code=None,
        has_parity=False,
        has_series=False,
        rank_work=work_of_died(lines) if lines else None,
        source=source,
        location=ReportLocation.of(raw, path=None),
    )
