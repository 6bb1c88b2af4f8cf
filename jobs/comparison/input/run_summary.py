"""One run as the comparison keeps it: what is compared and shown of it, and where the whole report is.

A report is tens of kilobytes, most of it samples; of ten thousand reports only what is needed stays in memory.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from jobs.comparison.fields import ENVIRONMENT, FIELDS
from jobs.comparison.input.metrics import METRICS, Missing, plausible
from jobs.comparison.input.parse import InvalidReport, parse, read_slice
from jobs.comparison.schema import TrainingCode
from jobs.comparison.text import shortened

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from datetime import datetime
    from pathlib import Path
    from typing import TypeVar

    from jobs.comparison.fields import Value
    from jobs.comparison.schema import MetricName
    from jobs.report import Report
    from jobs.report.schema import Dataset, FrameworkName, PhaseName, Status

    Same = TypeVar("Same", bound=Hashable)

TEXT_LIMIT: Final = 1000
"""Characters kept of one text out of a report; what is longer is cut and says so."""

WARNINGS_LIMIT: Final = 100
"""Warnings kept of one run."""

DEVICES_LIMIT: Final = 100
"""Devices kept of one run; what has more says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLocation:
    """Where a report's JSON is: ``size`` bytes at ``offset`` of the file ``path``, or ``kept``, compressed.

    ``sha256`` is that of the JSON as it was when it was read.
    """

    path: Path | None = None
    offset: int = 0
    size: int = 0
    kept: bytes = b""
    sha256: bytes = b""

    @classmethod
    def of(cls, raw: bytes, *, path: Path | None, offset: int = 0) -> ReportLocation:
        """The place of ``raw``, which was read at ``offset`` of ``path``; without one it is kept."""
        if path is None:
            return cls(kept=zlib.compress(raw, 1), sha256=sha256(raw).digest())
        return cls(path=path, offset=offset, size=len(raw), sha256=sha256(raw).digest())


class EpochPoint(NamedTuple):
    """Test accuracy after ``epoch``, and the training time up to there, evaluation excluded."""

    epoch: int
    train_s: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One attempt of one run.

    ``compared`` and ``environment`` are the values of :data:`.fields.FIELDS` and :data:`.fields.ENVIRONMENT`, in
    their order; ``epochs`` is how many were asked for, ``epoch_accuracies`` those whose test accuracy was measured;
    ``phases_s`` is the total time in each phase the run had; ``measured`` has every metric's value or why there is
    none; ``gpu_uuids`` are those of the devices that were used; ``suspect_of`` names what disturbed the run, if
    anything did. ``source`` names the file or log for people, ``place`` leads back to the whole report.
    """

    run_id: str
    attempt: int
    status: Status
    status_reason: str | None
    started_at_utc: datetime
    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    framework_version: str
    seed: int
    dataset: Dataset
    compared: tuple[Value, ...]
    environment: tuple[Value, ...]
    node: str | None
    gpu_uuids: tuple[str, ...]
    measured: dict[MetricName, float | Missing]
    epochs: int
    epoch_accuracies: tuple[EpochPoint, ...]
    phases_s: dict[PhaseName, float]
    warnings: tuple[tuple[str, str], ...]
    suspect_of: tuple[str, ...]
    code: TrainingCode
    has_parity: bool
    has_series: bool
    source: str
    place: ReportLocation

    @property
    def timed(self) -> bool:
        """Whether it trained: a run of no epoch recorded a parity trace, and has no time to compare."""
        return self.epochs > 0

    def whole(self) -> Report:
        """The whole report, read again.

        Raises:
            BadInput: its file has gone or changed meanwhile.
        """
        return parse(self.raw(), origin=self.source)

    def raw(self) -> bytes:
        """The report's JSON, read again.

        Raises:
            BadInput: its file has gone or changed meanwhile.
        """
        place = self.place
        if place.path is None:
            return zlib.decompress(place.kept)
        raw = read_slice(place.path, place.offset, place.size)
        if sha256(raw).digest() != place.sha256:
            raise InvalidReport(
                f"{self.source!r} has changed since it was read first; merge again once nothing writes to it"
            )
        return raw


SHARED: Final = (
    "recipe",
    "framework_version",
    "dataset",
    "compared",
    "environment",
    "node",
    "gpu_uuids",
    "warnings",
    "suspect_of",
    "code",
)
"""Fields that many runs have the same value of."""


class Reducer:
    """Turns reports into :class:`RunSummary`; what many runs have in common is kept once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Hashable] = {}

    def reduce(self, report: Report, *, source: str, place: ReportLocation) -> RunSummary:
        config, environment = report.config, report.environment
        return RunSummary(
            run_id=report.run_id,
            attempt=report.attempt,
            status=report.status,
            status_reason=None if report.status_reason is None else shortened(report.status_reason, TEXT_LIMIT),
            started_at_utc=report.started_at_utc,
            recipe=self._one(shortened(config.recipe, TEXT_LIMIT)),
            protocol=config.protocol,
            framework=config.framework,
            framework_version=self._one(shortened(environment.framework.version, TEXT_LIMIT)),
            seed=config.seed,
            dataset=self._one(config.dataset),
            compared=self._one(tuple(_cut(field.read(report)) for field in FIELDS)),
            environment=self._one(tuple(_cut(field.read(report)) for field in ENVIRONMENT)),
            node=self._node(report),
            gpu_uuids=self._one(_uuids(report)),
            measured={metric.name: self._measured(metric.of(report)) for metric in METRICS},
            epochs=config.epochs,
            epoch_accuracies=tuple(_epoch_points(report)),
            phases_s=_phases_s(report),
            warnings=self._one(
                tuple(
                    (shortened(warning.code, TEXT_LIMIT), shortened(warning.message, TEXT_LIMIT))
                    for warning in report.warnings[:WARNINGS_LIMIT]
                )
            ),
            suspect_of=self._one(_suspect_of(report)),
            code=self._one(TrainingCode.of(report)),
            has_parity=report.parity is not None,
            has_series=report.timeseries is not None,
            source=source,
            place=place,
        )

    def share(self, run: RunSummary) -> RunSummary:
        """The same run with what it has in common with others kept once; another process's run has its own copies."""
        shared = {name: self._one(getattr(run, name)) for name in SHARED}
        if all(getattr(run, name) is value for name, value in shared.items()):
            return run
        measured = {
            name: self._one(value) if isinstance(value, Missing) else value for name, value in run.measured.items()
        }
        return replace(run, **shared, measured=measured)

    def _one(self, value: Same) -> Same:
        # 1, 1.0 and True are equal and hash alike, but are not shown alike.
        key = (value, tuple(map(type, value))) if isinstance(value, tuple) else value
        return self._known.setdefault(key, value)  # type: ignore[return-value]

    def _node(self, report: Report) -> str | None:
        kubernetes = report.environment.kubernetes
        node = None if kubernetes is None else kubernetes.node
        return None if node is None else self._one(shortened(node, TEXT_LIMIT))

    def _measured(self, value: float | Missing) -> float | Missing:
        return self._one(Missing(reason=shortened(value.reason, TEXT_LIMIT))) if isinstance(value, Missing) else value


def _epoch_points(report: Report) -> Iterator[EpochPoint]:
    train_s = 0.0
    for epoch in report.results.epochs:
        train_s += epoch.wall_s
        if epoch.test_accuracy_ratio is not None and plausible(train_s):
            yield EpochPoint(epoch.epoch, train_s, epoch.test_accuracy_ratio)


def _phases_s(report: Report) -> dict[PhaseName, float]:
    totals: dict[PhaseName, float] = {}
    for phase in report.phases:
        totals[phase.name] = totals.get(phase.name, 0.0) + max(0.0, phase.end_s - phase.start_s)
    return {name: total for name, total in totals.items() if plausible(total)}


def _suspect_of(report: Report) -> tuple[str, ...]:
    if report.validity is None or report.validity.status != "suspect":
        return ()
    return tuple(shortened(cause, TEXT_LIMIT) for cause in report.validity.causes[:WARNINGS_LIMIT])


def _uuids(report: Report) -> tuple[str, ...]:
    uuids = [uuid for device in report.devices if (uuid := device.mig_uuid or device.uuid)]
    kept = tuple(shortened(uuid, TEXT_LIMIT) for uuid in uuids[:DEVICES_LIMIT])
    return kept if len(kept) == len(uuids) else (*kept, f"… ({len(uuids):,} devices)")


def _cut(value: Value) -> Value:
    return shortened(value, TEXT_LIMIT) if isinstance(value, str) else value
