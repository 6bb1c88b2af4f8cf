"""What two sides' runs show about the headline metric: a ratio with its interval, and a p value, by their design."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jobs.comparison.analysis.design import Design, read_design
from jobs.comparison.analysis.permutation import UNITS_FOR_SIGNS, sign_flip_p, student_p, two_sample_p
from jobs.comparison.analysis.statistics import (
    RUNS_FOR_A_VERDICT,
    mean_interval,
    median_interval,
    observed,
    ratio_of_medians,
)
from jobs.comparison.input.metrics import HEADLINE, Missing
from jobs.comparison.schema import ComparedUnits, MetricRatio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.input.run_summary import RunSummary

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]


MAX_EXPONENT: Final = 700.0
"""About the largest power of e that is a float."""


class Evidence(NamedTuple):
    """The ratio of the two sides and the p of its test; either is ``None`` where it cannot be formed.

    ``design`` is ``None`` where a side has no run that counts.
    """

    ratio: MetricRatio | None
    p: float | None
    design: Design | None
    units: ComparedUnits | None = None


def counted(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs that the verdict counts: completed, with a measured positive speed, and not suspect."""
    return [run for run in runs if why_excluded(run) is None]


def why_excluded(run: RunSummary) -> str | None:
    """Why the verdict does not count ``run``, ``None`` where it does."""
    if not HEADLINE.counts(run.status):
        return run.status
    speed = run.measured(HEADLINE.name)
    if isinstance(speed, Missing):
        return "completed without the measurement"
    if speed <= 0:
        return f"a speed of {speed:g}, which has no ratio to another"
    return "suspect" if run.suspect_of else None


def weigh(sides: Sides) -> Evidence:
    """The evidence of two ``sides``; the ratio is of the second to the first."""
    valid = {framework: counted(runs) for framework, runs in sides.items()}
    speeds = {framework: observed(runs) for framework, runs in valid.items()}
    if not all(speeds.values()):
        return Evidence(None, None, None)
    design = read_design(valid)
    if design.confounded or not design.parts:
        lacking = {id(run) for run, _ in design.left_out} if design.confounded else set()
        speeds = {name: observed(run for run in runs if id(run) not in lacking) for name, runs in valid.items()}
        return Evidence(without_interval(ratio_of_medians(speeds)), None, design)
    units = ComparedUnits(
        unit="node" if len(design.nodes) > 1 else "block" if design.in_blocks else "run",
        nodes=len(design.nodes),
        blocks=len(design.parts) if design.in_blocks else None,
        runs=dict(zip(sides, design.runs, strict=True)),
    )
    if min(units.blocks or RUNS_FOR_A_VERDICT, *design.runs) < RUNS_FOR_A_VERDICT:
        return Evidence(without_interval(ratio_of_medians(speeds)), None, design, units)
    names = tuple(sides)
    ratio, p = _of_runs(names, design) if units.unit == "run" else _of_units(names, design)
    return Evidence(ratio, p, design, units)


def _of_runs(names: Sequence[FrameworkName], design: Design) -> tuple[MetricRatio | None, float]:
    """The ratio of medians of runs on one node; on several GPUs each run's speed is taken relative to its GPU's."""
    levels = [float(np.median(part.first) + np.median(part.second)) / 2 for part in design.parts]
    usual = sum(levels) / len(levels)
    first, second = (
        np.concatenate([side + (usual - level) for side, level in zip(parts, levels, strict=True)])
        for parts in ([part.first for part in design.parts], [part.second for part in design.parts])
    )
    speeds = {names[0]: np.exp(first).tolist(), names[1]: np.exp(second).tolist()}
    return ratio_of_medians(speeds), _p_of_runs(design)


def _of_units(names: Sequence[FrameworkName], design: Design) -> tuple[MetricRatio | None, float]:
    """The median ratio of blocks on one node, or the mean ratio of several nodes with Student's interval."""
    by_node = [np.array([part.log_ratio for part in parts]) for parts in design.nodes.values()]
    if len(by_node) == 1:
        (blocks,) = by_node
        p = max(student_p(blocks), sign_flip_p(blocks))
        return _ratio(names, float(np.median(blocks)), *median_interval(blocks.tolist())), p
    nodes = np.array([parts.mean() for parts in by_node])
    if nodes.size >= UNITS_FOR_SIGNS:
        p = sign_flip_p(nodes)
    elif design.in_blocks:
        p = sign_flip_p(np.concatenate([parts / parts.size for parts in by_node]))
    else:
        p = _p_of_runs(design)
    return _ratio(names, *mean_interval(nodes)), max(student_p(nodes), p)


def _p_of_runs(design: Design) -> float:
    return two_sample_p([(part.first, part.second) for part in design.parts], excess=design.excess)


def _ratio(names: Sequence[FrameworkName], *logs: float) -> MetricRatio | None:
    """The ratio and its bounds from their logarithms; ``None`` past a float's range."""
    if max(map(abs, logs)) > MAX_EXPONENT:
        return None
    middle, low, high = map(exp, logs)
    return MetricRatio(metric=HEADLINE.name, numerator=names[1], denominator=names[0], ratio=middle, low=low, high=high)


def without_interval(ratio: MetricRatio | None) -> MetricRatio | None:
    """``ratio`` as a number alone."""
    return None if ratio is None else ratio.model_copy(update={"low": None, "high": None})
