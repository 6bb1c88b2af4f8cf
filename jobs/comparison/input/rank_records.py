"""The log lines of the ranks of a run, for a run that died before its report: who was there, and how far they came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.input.metrics import Missing
from jobs.comparison.input.parse import parse_document
from jobs.comparison.input.rank_work import MAX_RANKS, RankSeen, RankWork
from jobs.comparison.text import join_limited, shortened
from jobs.report.rank_record import RankRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Attempt = tuple[str, int]
"""Run id and number of an attempt."""

_MAX_NAMED: Final = 8
_NODE_LIMIT: Final = 100
_NO_REPORT: Final = Missing("the run has no report")


def parse_rank_record(raw: bytes, *, origin: str) -> RankRecord:
    """Turn JSON into a rank's record; ``origin`` names it in errors.

    Raises:
        InvalidReport: not strict JSON, not such a record, or of a schema version this release cannot read.
    """
    return parse_document(RankRecord, raw, origin=origin, what="rank record")


@dataclass(frozen=True)
class RankLine:
    """The last line of one rank, and where it was read."""

    record: RankRecord
    source: str
    raw: bytes

    @property
    def order(self) -> tuple[Any, ...]:
        """Larger for a later line of the rank; does not depend on the order of the input."""
        return self.record.ended, _last_epoch(self.record), self.source, self.raw


@dataclass
class RankRecords:
    """The lines that a merge has read, the last one of each rank and attempt; ``records`` counts all."""

    records: int = 0
    _found: dict[tuple[Attempt, int], RankLine] = field(default_factory=dict)

    def add(self, record: RankRecord, *, source: str, raw: bytes) -> None:
        self.records += 1
        key = (record.run_id, record.attempt), record.part.rank
        line = RankLine(record, source, raw)
        known = self._found.get(key)
        self._found[key] = line if known is None else max(known, line, key=lambda one: one.order)

    def by_attempt(self) -> dict[Attempt, list[RankLine]]:
        """The lines of each attempt, by rank."""
        attempts: dict[Attempt, list[RankLine]] = {}
        for (attempt, _), line in sorted(self._found.items(), key=lambda item: item[0]):
            attempts.setdefault(attempt, []).append(line)
        return attempts

    def texts(self) -> Iterator[str]:
        """A clause for each attempt."""
        for (run_id, _), lines in self.by_attempt().items():
            yield f"{run_id}: {progress_text(lines)}"


def work_of_died(lines: Sequence[RankLine]) -> RankWork:
    """What ``lines`` say of a run that has no report."""
    seen = [
        RankSeen(line.record.part.rank, _node(line.record), _last_epoch(line.record), line.record.ended)
        for line in lines[:MAX_RANKS]
    ]
    return RankWork(
        one_rank_images_per_s=_NO_REPORT,
        times=_NO_REPORT,
        ranks=(),
        epochs=(),
        packed_step_s=b"",
        untimed=_NO_REPORT,
        seen=tuple(seen),
    )


def progress_text(lines: Sequence[RankLine]) -> str:
    """Which of a run's ranks left lines, and the last epoch that each of them ended."""
    records = [line.record for line in lines]
    seen = {record.part.rank for record in records}
    absent = [str(rank) for rank in range(min(records[0].ranks, MAX_RANKS)) if rank not in seen]
    text = f"of {records[0].ranks} ranks "
    text += join_limited([_rank_text(record) for record in records], _MAX_NAMED)
    return f"{text}; no line of rank {join_limited(absent, _MAX_NAMED)}" if absent else text


def _rank_text(record: RankRecord) -> str:
    node = _node(record)
    name = f"rank {record.part.rank}" + (f" ({node})" if node else "")
    epoch = _last_epoch(record)
    return f"{name} ended epoch {epoch}" if epoch else f"{name} ended no epoch"


def _last_epoch(record: RankRecord) -> int:
    return max((epoch.epoch for epoch in record.part.epochs), default=0)


def _node(record: RankRecord) -> str | None:
    node = record.part.node
    return None if node is None else shortened(node, _NODE_LIMIT)
