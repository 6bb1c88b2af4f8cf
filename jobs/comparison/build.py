"""Puts loaded, comparable runs together into one comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Final

from jobs import __version__
from jobs.comparison.analysis.comparability import group
from jobs.comparison.analysis.fleet import by_node
from jobs.comparison.analysis.parity_verdict import paired_traces, section_parity
from jobs.comparison.analysis.regression import gate
from jobs.comparison.analysis.statistics import (
    CONFIDENCE,
    RESAMPLES,
    holm_correction,
    observed,
    permutation_p,
    ratio_of_medians,
    summarise,
)
from jobs.comparison.analysis.verdict import decide_verdict
from jobs.comparison.input.metrics import METRICS, TRAINED_TO_THE_END, Metric, Missing
from jobs.comparison.input.run_summary import last_attempts
from jobs.comparison.schema import (
    Comparison,
    Data,
    EpochAccuracy,
    FrameworkResults,
    Observation,
    RunRow,
    RunWarnings,
    Section,
    SideMetric,
    SkippedInput,
    Unmeasured,
)
from jobs.comparison.schema_base import LazyList

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.comparability import Group
    from jobs.comparison.analysis.statistics import Significance
    from jobs.comparison.input.load import Loaded
    from jobs.comparison.input.run_summary import EpochPoint, RunSummary
    from jobs.comparison.schema import MetricRatio
    from jobs.comparison.schema_parity import ParityPair


MAX_ROWS_KEPT: Final = 10_000
"""Rows of one section that are made once and kept, which takes 2 kB each. Of more runs, each reader makes its own."""


def build(loaded: Loaded, *, allow: Iterable[str] = (), baseline: Loaded | None = None) -> Comparison:
    """Compare the runs of ``loaded``; ``allow`` names fields that differ on purpose.

    With a ``baseline`` of earlier runs the comparison also says what became of each framework since.

    Raises:
        BadInput: ``allow`` names a field that is not compared.
        NotComparable: the runs differ in their data or, inside a recipe and protocol, in another field.
    """
    allowed = sorted(set(allow))
    groups = group(loaded.runs, allow=allowed)
    tests = holm_correction([_p_value(_sides(found)) for found in groups])
    parity, unpaired = paired_traces(loaded.runs)
    return Comparison(
        comparison_id=_comparison_id(loaded, baseline, allowed),
        package_version=__version__,
        data=_data(loaded.runs),
        confidence_ratio=CONFIDENCE,
        bootstrap_resamples=RESAMPLES,
        allowed=allowed,
        gate=None
        if baseline is None
        else gate(last_attempts(loaded.runs), last_attempts(baseline.runs), allow=allowed),
        sections=[_section(found, test, parity) for found, test in zip(groups, tests, strict=True)],
        parity=parity,
        unpaired_traces=unpaired,
        skipped=[
            SkippedInput(source=skipped.source, reason=skipped.reason, count=skipped.count)
            for skipped in loaded.skipped
        ],
    )


def _comparison_id(loaded: Loaded, baseline: Loaded | None, allowed: Sequence[str]) -> str:
    """The same reports from the same places, compared alike, give the same id; nothing else does."""
    digest = sha256(repr((__version__, allowed, baseline is None)).encode())
    for side in (loaded, baseline):
        if side is not None:
            for run in side.runs:
                digest.update(repr((run.source, run.location.sha256)).encode())
            digest.update(repr(side.skipped).encode())
    # In groups, so that no spreadsheet takes it for a number.
    return "-".join(digest.hexdigest()[at : at + 4] for at in range(0, 16, 4))


def _data(runs: Sequence[RunSummary]) -> Data:
    first = runs[0].dataset
    return Data(
        names=sorted({run.dataset.name for run in runs}),
        sha256=first.sha256,
        train_examples=first.train_examples,
        test_examples=first.test_examples,
    )


def _sides(found: Group) -> dict[FrameworkName, list[RunSummary]]:
    return {
        framework: list(runs) for framework, runs in groupby(last_attempts(found.runs), key=lambda run: run.framework)
    }


def _p_value(sides: Mapping[FrameworkName, Sequence[RunSummary]]) -> float | None:
    return permutation_p(*map(observed, sides.values())) if len(sides) == 2 else None


def _section(found: Group, significance: Significance | None, parity: Sequence[ParityPair]) -> Section:
    sides = _sides(found)
    ratios = _ratios(sides)
    rows = LazyList(len(found.runs), lambda index: _row(found.runs[index]))
    headline = next((ratio for ratio in ratios if ratio.metric == METRICS[0].name), None)
    return Section(
        recipe=found.recipe,
        protocol=found.protocol,
        verdict=decide_verdict(sides, headline, significance),
        parity=section_parity(found.recipe, found.protocol, found.runs, parity),
        sides=[_side(framework, runs) for framework, runs in sides.items()],
        ratios=ratios,
        held_equal=found.held_equal,
        differences=found.differences,
        runs=rows if len(rows) > MAX_ROWS_KEPT else list(rows),
        warnings=[warning for framework, runs in sides.items() for warning in _warnings(framework, runs)],
    )


def _ratios(sides: Mapping[FrameworkName, Sequence[RunSummary]]) -> list[MetricRatio]:
    if len(sides) == 1:
        return []
    ratios = (
        ratio_of_medians({framework: observed(runs, metric) for framework, runs in sides.items()}, metric.name)
        for metric in METRICS
        if metric.as_ratio
    )
    return [ratio for ratio in ratios if ratio is not None]


def _side(framework: FrameworkName, runs: Sequence[RunSummary]) -> FrameworkResults:
    return FrameworkResults(
        framework=framework,
        framework_versions=sorted({run.framework_version for run in runs}),
        runs_by_status=dict(sorted(Counter(run.status for run in runs).items())),
        metrics=[_side_metric(metric, runs) for metric in METRICS],
        epochs=_epochs(runs),
        nodes=by_node(runs),
    )


def _side_metric(metric: Metric, runs: Sequence[RunSummary]) -> SideMetric:
    measured = [(run.measured[metric.name], run) for run in runs if metric.counts(run)]
    reasons = Counter(value.reason for value, _ in measured if isinstance(value, Missing))
    observed_in = [run for value, run in measured if not isinstance(value, Missing)]
    observed_in.sort(key=lambda run: (run.measured[metric.name], run.run_id, run.attempt))
    summary = summarise(observed(runs, metric))
    return SideMetric(
        name=metric.name,
        unit=metric.unit,
        **(summary._asdict() if summary else {"n": 0}),
        observations=LazyList(len(observed_in), lambda index: _observation(metric, observed_in[index])),
        unmeasured=[Unmeasured(reason=reason, runs=count) for reason, count in sorted(reasons.items())],
    )


def _observation(metric: Metric, run: RunSummary) -> Observation:
    value = run.measured[metric.name]
    assert not isinstance(value, Missing)
    return Observation.model_construct(run_id=run.run_id, attempt=run.attempt, value=value)


def _epochs(runs: Iterable[RunSummary]) -> list[EpochAccuracy]:
    points: dict[int, list[EpochPoint]] = defaultdict(list)
    for run in runs:
        if run.status in TRAINED_TO_THE_END:
            for point in run.epoch_accuracies:
                points[point.epoch].append(point)
    accuracies: list[EpochAccuracy] = []
    for epoch, reached in sorted(points.items()):
        times = summarise([point.train_s for point in reached])
        ratios = summarise([point.accuracy for point in reached])
        assert times is not None
        assert ratios is not None
        accuracies.append(
            EpochAccuracy(
                epoch=epoch,
                n=ratios.n,
                train_s=times.median,
                median=ratios.median,
                minimum=ratios.minimum,
                maximum=ratios.maximum,
            )
        )
    return accuracies


def _row(run: RunSummary) -> RunRow:
    # Its values were validated with the report; validating them again would double the time.
    return RunRow.model_construct(
        framework=run.framework,
        framework_version=run.framework_version,
        seed=run.seed,
        run_id=run.run_id,
        attempt=run.attempt,
        status=run.status,
        status_reason=run.status_reason,
        started_at_utc=run.started_at_utc,
        node=run.node,
        gpu_uuids=list(run.gpu_uuids),
        source=run.source,
        phases_s=run.phases_s,
        metrics={name: None if isinstance(value, Missing) else value for name, value in run.measured.items()},
        missing={name: value.reason for name, value in run.measured.items() if isinstance(value, Missing)},
    )


def _warnings(framework: FrameworkName, runs: Iterable[RunSummary]) -> list[RunWarnings]:
    # A run that gives one warning twice still counts once.
    given = Counter(warning for run in runs for warning in set(run.warnings))
    return [
        RunWarnings(framework=framework, code=code, message=message, runs=count)
        for (code, message), count in sorted(given.items())
    ]
