"""Builds the comparison from loaded runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Final

from jobs import __version__
from jobs.comparison import schema
from jobs.comparison.analysis import statistics
from jobs.comparison.analysis.comparability import group_comparable
from jobs.comparison.analysis.evidence import weigh, without_interval
from jobs.comparison.analysis.expected import missing_runs
from jobs.comparison.analysis.fleet import by_node, second_pass
from jobs.comparison.analysis.gpu_figures import fewest_readings, gpu_text
from jobs.comparison.analysis.parity_verdict import paired_traces, section_parity
from jobs.comparison.analysis.reduction_cost import reduction_costs
from jobs.comparison.analysis.regression import gate
from jobs.comparison.analysis.scaling import efficiency, scaling_series
from jobs.comparison.analysis.stragglers import rank_speeds
from jobs.comparison.analysis.verdict import decide_verdict
from jobs.comparison.input.metrics import HEADLINE, METRICS, TRAINED_TO_THE_END, Metric, Missing
from jobs.comparison.input.run_summary import last_attempts
from jobs.comparison.schema_base import LazyList, Readings
from jobs.comparison.schema_scaling import RankProgress, Unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.comparability import Group
    from jobs.comparison.analysis.evidence import Evidence
    from jobs.comparison.analysis.expected import Expected, MissingRuns
    from jobs.comparison.input.load import Loaded
    from jobs.comparison.input.run_summary import EpochPoint, RunSummary
    from jobs.comparison.schema_parity import ParityPair


MAX_ROWS_KEPT: Final = 10_000
"""Up to this many rows of a section are kept in memory, at 2 kB each; more rows are made each time they are read."""

_COPIED_FIELDS: Final = schema.RunRow.model_fields.keys() - {
    *("gpu_uuids", "metrics", "readings", "missing", "efficiency_ratio", "ranks_seen")
}
"""Fields of a row that a run summary has under the same name."""


def build(
    loaded: Loaded, *, allow: Iterable[str] = (), baseline: Loaded | None = None, expected: Expected | None = None
) -> schema.Comparison:
    """Compare the runs of ``loaded``; ``allow`` names fields that differ on purpose.

    With a ``baseline`` of earlier runs the comparison also has a regression gate. Runs that are ``expected`` and
    missing count as failed in the verdict.

    Raises:
        BadInput: ``allow`` names a field that is not compared.
        NotComparable: the runs differ in their data or, inside a recipe and protocol, in another field.
    """
    allowed = sorted(set(allow))
    groups = group_comparable(loaded.runs, allow=allowed)
    evidence = [weigh(sides) if len(sides := _sides(group)) == 2 else None for group in groups]
    tests = statistics.holm_correction([found and found.p for found in evidence])
    parity, unpaired = paired_traces(loaded.runs)
    return schema.Comparison(
        comparison_id=_comparison_id(loaded, baseline, allowed, expected),
        package_version=__version__,
        data=_data(loaded.runs),
        confidence_ratio=statistics.CONFIDENCE,
        bootstrap_resamples=statistics.RESAMPLES,
        allowed=allowed,
        gate=None
        if baseline is None
        else gate(last_attempts(loaded.runs), last_attempts(baseline.runs), allow=allowed),
        sections=[
            _section(group, found, test, parity, expected or {})
            for group, found, test in zip(groups, evidence, tests, strict=True)
        ],
        scaling=scaling_series(loaded.runs),
        reduction_costs=reduction_costs(loaded.runs),
        parity=parity,
        unpaired_traces=unpaired,
        skipped=[
            schema.SkippedInput(source=skipped.source, reason=skipped.reason, count=skipped.count)
            for skipped in loaded.skipped
        ],
    )


def _comparison_id(loaded: Loaded, baseline: Loaded | None, allowed: Sequence[str], expected: Expected | None) -> str:
    """An id of the input: the same reports from the same files, compared with the same options, give the same id."""
    digest = sha256(repr((__version__, allowed, baseline is None, expected or None)).encode())
    for side in (loaded, baseline):
        if side is not None:
            for run in side.runs:
                digest.update(repr((run.source, run.location.sha256)).encode())
            digest.update(repr(side.skipped).encode())
    # In groups, so that no spreadsheet takes it for a number.
    return "-".join(digest.hexdigest()[at : at + 4] for at in range(0, 16, 4))


def _data(runs: Sequence[RunSummary]) -> schema.Data:
    return schema.Data(names=sorted({run.dataset.name for run in runs}), **runs[0].dataset.model_dump(exclude={"name"}))


def _sides(group: Group) -> dict[FrameworkName, list[RunSummary]]:
    return {
        framework: list(runs) for framework, runs in groupby(last_attempts(group.runs), key=lambda run: run.framework)
    }


def _section(
    group: Group,
    evidence: Evidence | None,
    significance: statistics.Significance | None,
    parity: Sequence[ParityPair],
    expected: Expected,
) -> schema.Section:
    sides = _sides(group)
    missing = missing_runs(sides, expected)
    rows = LazyList(len(group.runs), lambda index: _row(group.runs[index]))
    return schema.Section(
        recipe=group.recipe,
        protocol=group.protocol,
        ranks=group.setting.ranks,
        reduction=group.setting.reduction,
        scaling=group.setting.scaling,
        verdict=decide_verdict(sides, evidence, significance, missing),
        parity=section_parity(group, parity),
        sides=[_side(framework, runs, missing.get(framework)) for framework, runs in sides.items()],
        ratios=[] if evidence is None else _ratios(sides, evidence),
        held_equal=group.held_equal,
        differences=group.differences,
        rank_speeds=[found for name, runs in sides.items() if (found := rank_speeds(name, runs)) is not None],
        runs=rows if len(rows) > MAX_ROWS_KEPT else list(rows),
        warnings=[warning for framework, runs in sides.items() for warning in _warnings(framework, runs)],
    )


def _ratios(sides: Mapping[FrameworkName, Sequence[RunSummary]], evidence: Evidence) -> list[schema.MetricRatio]:
    """The verdict's ratio, and the ratio of the medians of all runs that count for each other metric.

    Where the verdict is *confounded*, none has an interval: the order or the node moves the other metrics as well.
    """
    ratios = [
        evidence.ratio
        if metric is HEADLINE
        else statistics.ratio_of_medians(
            {framework: statistics.observed(runs, metric) for framework, runs in sides.items()}, metric.name
        )
        for metric in METRICS
        if metric.as_ratio
    ]
    if evidence.design is not None and evidence.design.confounded is not None:
        ratios = [without_interval(ratio) for ratio in ratios]
    return [ratio for ratio in ratios if ratio is not None]


def _side(framework: FrameworkName, runs: Sequence[RunSummary], missing: MissingRuns | None) -> schema.FrameworkResults:
    # Several ranks of a run may be on as many nodes.
    nodes = [] if runs[0].rank_setting.is_several else by_node(_on_known_gpus(runs))
    by_status: dict[str, int] = dict(sorted(Counter(run.status for run in runs).items()))
    return schema.FrameworkResults(
        framework=framework,
        framework_versions=sorted({run.framework_version for run in runs if run.framework_version is not None}),
        runs_by_status=by_status if missing is None else by_status | {"missing": missing.runs},
        metrics=[_side_metric(metric, runs) for metric in METRICS],
        gpu_text=gpu_text(runs),
        epochs=_epochs(runs),
        nodes=nodes,
        second_pass=second_pass(nodes, runs[0]),
    )


def _on_known_gpus(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """``runs`` without those that died before they named their GPU, on nodes whose GPUs other runs name."""
    nodes = {run.node for run in runs if run.gpu_uuids}
    return [run for run in runs if run.has_report or run.node not in nodes]


def _side_metric(metric: Metric, runs: Sequence[RunSummary]) -> schema.SideMetric:
    measured = [(run.measured(metric.name), run) for run in runs if metric.counts(run.status)]
    reasons = Counter(value.reason for value, _ in measured if isinstance(value, Missing))
    observed = [(value, run.run_id, run.attempt, run) for value, run in measured if not isinstance(value, Missing)]
    observed.sort(key=lambda entry: entry[:3])
    observed_in = [run for *_, run in observed]
    summary = statistics.summarise([value for value, *_ in observed])
    return schema.SideMetric(
        name=metric.name,
        unit=metric.unit,
        **(summary._asdict() if summary else {"n": 0}),
        readings=fewest_readings(metric, observed_in),
        observations=LazyList(len(observed_in), lambda index: _observation(metric, observed_in[index])),
        unmeasured=[Unmeasured(reason=reason, runs=count) for reason, count in sorted(reasons.items())],
    )


def _observation(metric: Metric, run: RunSummary) -> schema.Observation:
    value = run.measured(metric.name)
    assert not isinstance(value, Missing)
    return schema.Observation(run_id=run.run_id, attempt=run.attempt, value=value)


def _epochs(runs: Iterable[RunSummary]) -> list[schema.EpochAccuracy]:
    points: dict[int, list[EpochPoint]] = defaultdict(list)
    for run in runs:
        if run.status in TRAINED_TO_THE_END:
            for point in run.epoch_accuracies:
                points[point.epoch].append(point)
    accuracies: list[schema.EpochAccuracy] = []
    for epoch, reached in sorted(points.items()):
        times = statistics.summarise([point.train_s for point in reached])
        ratios = statistics.summarise([point.accuracy for point in reached])
        assert times is not None
        assert ratios is not None
        accuracies.append(
            schema.EpochAccuracy(
                epoch=epoch,
                n=ratios.n,
                train_s=times.median,
                median=ratios.median,
                minimum=ratios.minimum,
                maximum=ratios.maximum,
            )
        )
    return accuracies


def _row(run: RunSummary) -> schema.RunRow:
    # Its values were validated with the report; validating them again would double the time.
    measured = {metric.name: run.measured(metric.name) for metric in METRICS}
    fields = {name: getattr(run, name) for name in _COPIED_FIELDS} | {
        "gpu_uuids": list(run.gpu_uuids),
        "metrics": {name: None if isinstance(value, Missing) else value for name, value in measured.items()},
        "readings": {name: Readings(n=n, coverage_ratio=coverage) for name, (n, coverage) in run.readings.items()},
        "missing": {name: value.reason for name, value in measured.items() if isinstance(value, Missing)},
        "efficiency_ratio": None if isinstance(value := efficiency(run), Missing) else value,
        "ranks_seen": [] if run.rank_work is None else [RankProgress(**seen._asdict()) for seen in run.rank_work.seen],
    }
    return schema.RunRow.model_construct(**fields)


def _warnings(framework: FrameworkName, runs: Iterable[RunSummary]) -> list[schema.RunWarnings]:
    # A run with the same warning twice counts once.
    given = Counter(warning for run in runs for warning in set(run.warnings))
    return [
        schema.RunWarnings(framework=framework, code=code, message=message, runs=count)
        for (code, message), count in sorted(given.items())
    ]
