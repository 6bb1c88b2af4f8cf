"""Gates on simulated runs whose truth is known: how often an unchanged build is called a regression.

Each gate has two recipes in two frameworks, each with a speed, a training time and an accuracy. A day multiplies the
speeds of a side by a random factor (3 %). Each run has noise of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from jobs.choices import FrameworkName
from jobs.comparison.analysis.regression import gate
from jobs.comparison.input.run_summary import ReportLocation, summarize
from tests.support.reports import STARTED, make_report
from tests.support.simulated_runs import with_values

if TYPE_CHECKING:
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema_base import MetricName
    from jobs.comparison.schema_gate import Gate

RECIPES: Final[tuple[Literal["lenet", "basic-cnn"], ...]] = ("lenet", "basic-cnn")
SIDES: Final = tuple(product(RECIPES, get_args(FrameworkName)))
ACCURACY_NOISE: Final = 0.001


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """How runs came about: ``days`` of the baseline with ``runs`` each, and one day now, the baseline's own if 0."""

    name: str
    days: int
    runs: int = 5
    runs_now: int = 5
    days_now: int = 1
    noise: float = 0.02
    drift: float = 0.03
    heavy_tails: bool = False
    disturbed: int = 0
    """Runs of each side's baseline that something slowed by 30 %."""


CASES: Final = (
    GateCase(name="one day, 8 runs", days=1, runs=8),
    GateCase(name="3 days", days=3),
    GateCase(name="5 days", days=5),
    GateCase(name="10 days", days=10),
    GateCase(name="20 days, 5 days now", days=20, days_now=5),
    GateCase(name="20 days, heavy-tailed noise (t3)", days=20, heavy_tails=True),
    GateCase(name="20 days, two disturbed baseline runs", days=20, disturbed=2),
    GateCase(name="6 % between days, 10 days", days=10, drift=0.06),
    GateCase(name="now beside the baseline, 10 runs", days=1, runs=10, days_now=0),
    GateCase(name="now beside the baseline, one disturbed baseline run", days=1, runs=10, days_now=0, disturbed=1),
)


def gates(case: GateCase, *, speed: float, seed: int, count: int) -> Counter[str]:
    """The outcomes of ``count`` gates in which the builds now have ``speed`` times the baseline's."""
    random = np.random.default_rng(seed)
    return Counter(simulated_gate(case, speed, random).outcome for _ in range(count))


def simulated_gate(case: GateCase, speed: float, random: np.random.Generator) -> Gate:
    before: list[RunSummary] = []
    now: list[RunSummary] = []
    for side in SIDES:
        days = random.normal(0, case.drift, case.days + max(1, case.days_now))
        if case.days_now == 0:
            days[-1] = days[-2]
        old = [run for day in range(case.days) for run in _runs(side, case, day, days[day], case.runs, random)]
        for at in range(case.disturbed):
            old[at] = _scaled(old[at], 0.7)
        before += old
        for day in range(case.days, days.size):
            at = day if case.days_now else case.days - 1
            now += [_scaled(run, speed) for run in _runs(side, case, at, days[day], case.runs_now, random)]
    return gate(now, before)


def _runs(
    side: tuple[Any, Any], case: GateCase, day: int, shift: float, count: int, random: np.random.Generator
) -> list[RunSummary]:
    noise = random.standard_t(3, count) / np.sqrt(3) if case.heavy_tails else random.normal(size=count)
    accuracies = random.normal(0.95, ACCURACY_NOISE, count)
    return [
        _run(side, day, float(np.exp(shift + case.noise * one)), float(accuracy))
        for one, accuracy in zip(noise, accuracies, strict=True)
    ]


def _run(side: tuple[Any, Any], day: int, speed: float, accuracy: float) -> RunSummary:
    run = _template(*side)
    started = STARTED + timedelta(days=day)
    return with_values(run, {**_at_speed(run, speed), "test_accuracy_ratio": accuracy}, started_at_utc=started)


def _scaled(run: RunSummary, speed: float) -> RunSummary:
    return with_values(run, _at_speed(run, speed))


def _at_speed(run: RunSummary, speed: float) -> dict[MetricName, float]:
    """Speed and time of ``run`` if it were ``speed`` times as fast."""
    images_per_s, wall_s = run.measured("steady_images_per_s"), run.measured("train_wall_s")
    assert isinstance(images_per_s, float)
    assert isinstance(wall_s, float)
    return {"steady_images_per_s": images_per_s * speed, "train_wall_s": wall_s / speed}


@cache
def _template(recipe: Any, framework: Any) -> RunSummary:
    report = make_report(recipe=recipe, framework=framework)
    summary: RunSummary = summarize(report, source="simulated", location=ReportLocation())
    return summary
