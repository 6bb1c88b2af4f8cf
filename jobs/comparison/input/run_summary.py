"""The summary of one run for the comparison: about 1 kB of a report of tens of kB."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from hashlib import sha256
from struct import unpack_from
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from jobs.comparison.fields import ENVIRONMENT, FIELDS
from jobs.comparison.input.metrics import (
    METRICS,
    PLACE_OF,
    Missing,
    pack_measured,
    pack_readings,
    pack_values,
    plausible,
    unpack_readings,
    unpack_values,
)
from jobs.comparison.input.parse import InvalidReport, parse, read_slice
from jobs.comparison.input.rank_work import rank_work
from jobs.comparison.rank_setting import RankSetting
from jobs.comparison.schema_parity import TrainingCode
from jobs.comparison.text import shortened
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from datetime import datetime

    from jobs.choices import FrameworkName
    from jobs.comparison.fields import Value
    from jobs.comparison.input.rank_work import RankWork
    from jobs.comparison.schema_base import MetricName
    from jobs.report import Report
    from jobs.report.configuration import Design
    from jobs.report.schema import Dataset, PhaseName, Status

_Value = TypeVar("_Value", bound="Value")

TEXT_LIMIT: Final = 1000
"""Maximum characters kept of one text from a report."""

ITEMS_LIMIT: Final = 100
"""Maximum warnings and devices kept of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLocation:
    """Where a report's JSON is: ``size`` bytes at ``offset`` of the file ``path``, or ``compressed`` in memory.

    ``sha256`` is the digest of the JSON when it was first read.
    """

    path: str | None = None
    offset: int = 0
    size: int = 0
    compressed: bytes = b""
    sha256: bytes = b""

    @classmethod
    def of(cls, raw: bytes, *, path: str | None, offset: int = 0) -> ReportLocation:
        """The location of ``raw``, which was read at ``offset`` of ``path``; without a path it is kept in memory."""
        digest = sha256(raw).digest()
        if path is None:
            return cls(compressed=zlib.compress(raw, 1), sha256=digest)
        return cls(path=path, offset=offset, size=len(raw), sha256=digest)


class EpochPoint(NamedTuple):
    """Test accuracy after ``epoch``, and the training time up to there, evaluation excluded."""

    epoch: int
    train_s: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One attempt of one run.

    ``compared`` and ``environment`` are the values of :data:`.fields.FIELDS` and :data:`.fields.ENVIRONMENT`, in
    their order; :meth:`measured` gives every metric's value or why there is none;
    ``suspect_of`` are the causes for which the report calls its measurements suspect; ``unchecked`` what it could not
    read of the GPU, where it calls them unchecked; ``design`` is the run's place in an experiment of blocks;
    ``index`` is that of an Indexed Job whose indices are runs and not ranks; ``code`` is ``None`` for a run without a
    report, see :mod:`.started`; ``source`` is the printable name of the file or log.
    """

    run_id: str
    attempt: int
    status: Status
    status_reason: str | None
    started_at_utc: datetime
    finished_at_utc: datetime
    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    framework_version: str | None
    seed: int
    rank_setting: RankSetting
    index: int | None
    dataset: Dataset
    compared: tuple[Value, ...]
    environment: tuple[Value, ...]
    node: str | None
    gpu_uuids: tuple[str, ...]
    packed_measured: bytes
    missing: tuple[Missing | None, ...]
    """With the field before: what :func:`~.metrics.pack_measured` makes of the metrics."""
    packed_readings: bytes
    epochs: int
    """Epochs that were asked for."""
    repeat: int
    """Trainings that were asked for."""
    between_ratio: float
    """Share of the train phases in which no repeat trained: it lies between two of them."""
    packed_epochs: bytes
    phases: tuple[PhaseName, ...]
    packed_phases_s: bytes
    warnings: tuple[tuple[str, str], ...]
    suspect_of: tuple[str, ...]
    unchecked: tuple[str, ...]
    design: Design | None
    code: TrainingCode | None
    has_parity: bool
    has_series: bool
    rank_work: RankWork | None
    """``None`` for one rank, and for a run that left nothing but its start."""
    source: str
    location: ReportLocation

    def measured(self, name: MetricName) -> float | Missing:
        """The value of a metric, or why there is none."""
        at = PLACE_OF[name]
        value: float = unpack_from("d", self.packed_measured, 8 * at)[0]
        return self.missing[at] or value

    @property
    def phases_s(self) -> dict[PhaseName, float]:
        """The total time of each phase."""
        return dict(zip(self.phases, unpack_values(self.packed_phases_s), strict=True))

    @property
    def epoch_accuracies(self) -> list[EpochPoint]:
        """The epochs whose test accuracy was measured."""
        values = iter(unpack_values(self.packed_epochs))
        return [EpochPoint(int(epoch), *point) for epoch, *point in zip(values, values, values, strict=True)]

    @property
    def readings(self) -> dict[MetricName, tuple[int, float]]:
        """The number of readings and their coverage, by the GPU's metrics that are means of readings."""
        return unpack_readings(self.packed_readings)

    @property
    def identity(self) -> tuple[str, str, str, FrameworkName, int]:
        """What all attempts of one run share: its id, and what it is a run of."""
        return (self.run_id, self.recipe, self.protocol, self.framework, self.seed)

    @property
    def has_report(self) -> bool:
        return self.code is not None

    @property
    def has_training(self) -> bool:
        """Whether the run trained; with 0 epochs it only recorded a parity trace."""
        return self.epochs > 0

    def load_report(self) -> Report:
        """The whole report, read again.

        Raises:
            BadInput: its file is missing or has changed.
        """
        return parse(self.read_json(), origin=self.source)

    def read_json(self) -> bytes:
        """The report's JSON, read again.

        Raises:
            BadInput: its file is missing or has changed.
        """
        location = self.location
        if location.path is None:
            return zlib.decompress(location.compressed)
        try:
            raw = read_slice(location.path, location.offset, location.size, origin=self.source)
        except InvalidReport as error:
            raise BadInput(f"{error}; it could be read before: merge again once nothing changes it") from error
        if sha256(raw).digest() != location.sha256:
            # No InvalidReport: the run was counted, so the merge must not go on as if its file had never been one.
            raise BadInput(
                f"{self.source!r} has changed since it was read first; merge again once nothing writes to it"
            )
        return raw


def summarize(report: Report, *, source: str, location: ReportLocation) -> RunSummary:
    """The summary of ``report``; long texts and lists are cut."""
    config, environment = report.config, report.environment
    setting = RankSetting(ranks=config.ranks, reduction=config.reduction, scaling=config.scaling)
    packed_measured, missing = pack_measured({metric.name: _cut_reason(metric.of(report)) for metric in METRICS})
    phases_s = _phases_s(report)
    return RunSummary(
        run_id=report.run_id,
        attempt=report.attempt,
        status=report.status,
        status_reason=cut(report.status_reason),
        started_at_utc=report.started_at_utc,
        finished_at_utc=report.finished_at_utc,
        recipe=cut(config.recipe),
        protocol=config.protocol,
        framework=config.framework,
        framework_version=cut(environment.framework.version),
        seed=config.seed,
        rank_setting=setting,
        index=None if environment.kubernetes is None or setting.is_several else environment.kubernetes.index,
        dataset=config.dataset,
        compared=tuple(cut(field.read(report)) for field in FIELDS),
        environment=tuple(cut(field.read(report)) for field in ENVIRONMENT),
        node=cut(_node(report)),
        gpu_uuids=_uuids(report),
        packed_measured=packed_measured,
        missing=missing,
        packed_readings=pack_readings(report),
        epochs=config.epochs,
        repeat=config.repeat,
        between_ratio=_between_ratio(report),
        packed_epochs=pack_values(value for point in _epoch_points(report) for value in point),
        phases=tuple(phases_s),
        packed_phases_s=pack_values(phases_s.values()),
        warnings=tuple((cut(warning.code), cut(warning.message)) for warning in report.warnings[:ITEMS_LIMIT]),
        suspect_of=_suspect_of(report),
        unchecked=_unchecked(report),
        design=config.design,
        code=TrainingCode.of(report),
        has_parity=report.parity is not None,
        has_series=report.timeseries is not None,
        rank_work=rank_work(report),
        source=source,
        location=location,
    )


def last_attempts(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """``runs`` in their order, without attempts that a later attempt of the same run resumed.

    The last attempt's results include the earlier ones'. An interrupted attempt counts as a failed run only where no
    later one followed. Runs of other settings are other runs, even if they have the same id.
    """
    last: dict[Hashable, int] = {}
    for run in runs:
        last[run.identity] = max(run.attempt, last.get(run.identity, 0))
    return [run for run in runs if run.attempt == last[run.identity]]


def _epoch_points(report: Report) -> Iterator[EpochPoint]:
    train_s = 0.0
    for epoch in report.results.epochs:
        train_s += epoch.wall_s
        if epoch.test_accuracy_ratio is not None and plausible(train_s) and plausible(epoch.epoch):
            yield EpochPoint(epoch.epoch, train_s, epoch.test_accuracy_ratio)


def _phases_s(report: Report) -> dict[PhaseName, float]:
    totals: dict[PhaseName, float] = {}
    for phase in report.phases:
        totals[phase.name] = totals.get(phase.name, 0.0) + max(0.0, phase.end_s - phase.start_s)
    return {name: total for name, total in totals.items() if plausible(total)}


def _between_ratio(report: Report) -> float:
    repeats, training = report.results.repeats, report.training
    if repeats is None or training is None or training.duration_s <= 0:
        return 0.0
    return min(1.0, repeats.between_s / training.duration_s)


def _suspect_of(report: Report) -> tuple[str, ...]:
    if report.validity is None or report.validity.status != "suspect":
        return ()
    return tuple(map(cut, report.validity.causes[:ITEMS_LIMIT]))


def _unchecked(report: Report) -> tuple[str, ...]:
    if report.validity is None or report.validity.status != "unchecked":
        return ()
    return tuple(map(cut, report.validity.not_checked[:ITEMS_LIMIT])) or ("not sampled to the end",)


def _node(report: Report) -> str | None:
    """The Kubernetes node; of several ranks all of theirs, in order."""
    kubernetes = report.environment.kubernetes
    if kubernetes is None or kubernetes.node is None or report.config.ranks == 1:
        return None if kubernetes is None else kubernetes.node
    return ", ".join(sorted({kubernetes.node, *(part.node for part in report.ranks if part.node)}))


def _uuids(report: Report) -> tuple[str, ...]:
    uuids = [uuid for device in report.devices if (uuid := device.mig_uuid or device.uuid)]
    if report.config.ranks > 1:
        uuids = sorted(part.uuid for part in report.ranks if part.uuid)
    kept = tuple(map(cut, uuids[:ITEMS_LIMIT]))
    return kept if len(kept) == len(uuids) else (*kept, f"… ({len(uuids):,} devices)")


def cut(value: _Value) -> _Value:
    """``value``; a long text is cut to :data:`TEXT_LIMIT`."""
    return shortened(value, TEXT_LIMIT) if isinstance(value, str) else value  # type: ignore[return-value]


def _cut_reason(value: float | Missing) -> float | Missing:
    return Missing(cut(value.reason)) if isinstance(value, Missing) else value
