"""How speed grows with the number of ranks. One rank's speed is always that of the same job."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import exp, log
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jobs.comparison.analysis.evidence import MAX_EXPONENT, counted
from jobs.comparison.analysis.statistics import mean_interval, median
from jobs.comparison.fields import FIELDS
from jobs.comparison.input.metrics import HEADLINE, Missing, plausible
from jobs.comparison.input.run_summary import last_attempts
from jobs.comparison.schema_scaling import RankMeasure, ScalingPoint, ScalingSeries, Unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    from jobs.choices import FrameworkName, Reduction, Scaling
    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary

_FIELD_AT: Final = {field.path: at for at, field in enumerate(FIELDS)}
_BATCH_SIZE: Final = "config.batch_size"
_DEVICE: Final = "config.device"
_DEVICES: Final = "devices[].name"
_PRECISION: Final = "config.precision"


class _Key(NamedTuple):
    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    precision: str
    reduction: Reduction
    scaling: Scaling
    batch_size: float


def scaling_series(runs: Iterable[RunSummary]) -> list[ScalingSeries]:
    """A series for each framework and setting in which several ranks trained."""
    series: dict[_Key, dict[int, list[RunSummary]]] = defaultdict(lambda: defaultdict(list))
    for run in last_attempts([run for run in runs if run.rank_setting.is_several]):
        key = _key(run)
        if key is not None:
            series[key][run.rank_setting.ranks].append(run)
    return [
        ScalingSeries(
            **key._asdict(),
            points=[_point(ranks, counted(points[ranks])) for ranks in sorted(points)],
            differences=differing_fields(
                [run for runs in points.values() for run in runs], except_batch=key.scaling == "weak"
            ),
        )
        for key, points in sorted(series.items())
    ]


def efficiency(run: RunSummary) -> float | Missing:
    """Speed over the number of ranks times the speed of one rank in the same job.

    For strong scaling one rank trains the same steps; for weak it trains steps of its own batch.
    """
    work = run.rank_work
    if work is None:
        return Missing("one rank")
    speed, alone = run.measured(HEADLINE.name), work.one_rank_images_per_s
    if isinstance(speed, Missing) or isinstance(alone, Missing):
        return speed if isinstance(speed, Missing) else alone
    return speed / (run.rank_setting.ranks * alone)


def _key(run: RunSummary) -> _Key | None:
    """The series of ``run``; ``None`` for a run that does not say enough, as one without a report."""
    setting, steps = run.rank_setting, step_setting(run)
    if setting.reduction is None or setting.scaling is None or run.rank_work is None or steps is None:
        return None
    precision, batch_size = steps
    if setting.scaling == "weak":
        batch_size /= setting.ranks
    return _Key(run.recipe, run.protocol, run.framework, precision, setting.reduction, setting.scaling, batch_size)


def step_setting(run: RunSummary) -> tuple[str, float] | None:
    """Precision, and examples of a step of all ranks; ``None`` where the run does not say it."""
    precision, batch_size = (run.compared[_FIELD_AT[path]] for path in (_PRECISION, _BATCH_SIZE))
    if not isinstance(batch_size, int) or not plausible(batch_size):
        return None
    return str(precision), float(batch_size)


def device_of(run: RunSummary) -> str:
    """The names of the run's devices, or its kind where it names none."""
    names, kind = (run.compared[_FIELD_AT[path]] for path in (_DEVICES, _DEVICE))
    return str(names or kind)


def _point(ranks: int, runs: Sequence[RunSummary]) -> ScalingPoint:
    return ScalingPoint(
        ranks=ranks,
        runs=len(runs),
        images_per_s=_median(runs, lambda run: run.measured(HEADLINE.name)),
        one_rank_images_per_s=_median(runs, _one_rank_speed),
        efficiency_ratio=_mean_efficiency(runs),
        communication_ratio=_median(runs, lambda run: _share(run, "communication_s")),
        wait_ratio=_median(runs, lambda run: _share(run, "wait_s")),
    )


def _one_rank_speed(run: RunSummary) -> float | Missing:
    assert run.rank_work is not None
    return run.rank_work.one_rank_images_per_s


def _share(run: RunSummary, name: Literal["communication_s", "wait_s"]) -> float | Missing:
    """The share of the time of all ranks in their steps."""
    assert run.rank_work is not None
    times = run.rank_work.times
    if isinstance(times, Missing):
        return times
    share: float = getattr(times, name) / (times.compute_s + times.communication_s)
    return share


def _median(runs: Sequence[RunSummary], read: Callable[[RunSummary], float | Missing]) -> RankMeasure:
    values, unmeasured = _values(runs, read)
    return RankMeasure(n=len(values), value=median(values), unmeasured=unmeasured)


def _mean_efficiency(runs: Sequence[RunSummary]) -> RankMeasure:
    values, unmeasured = _values(runs, efficiency)
    if len(values) < 2:
        return RankMeasure(n=len(values), value=values[0] if values else None, unmeasured=unmeasured)
    middle, low, high = mean_interval(np.array([log(value) for value in values]))
    if max(-low, high) > MAX_EXPONENT:
        return RankMeasure(n=len(values), value=exp(middle), unmeasured=unmeasured)
    return RankMeasure(n=len(values), value=exp(middle), low=exp(low), high=exp(high), unmeasured=unmeasured)


def _values(
    runs: Sequence[RunSummary], read: Callable[[RunSummary], float | Missing]
) -> tuple[list[float], list[Unmeasured]]:
    """The values, smallest first, and why runs have none."""
    found = [read(run) for run in runs]
    reasons = Counter(value.reason for value in found if isinstance(value, Missing))
    unmeasured = [Unmeasured(reason=reason, runs=count) for reason, count in sorted(reasons.items())]
    return sorted(value for value in found if not isinstance(value, Missing)), unmeasured


def differing_fields(runs: Iterable[RunSummary], *, except_batch: bool = False) -> list[str]:
    """The compared fields that are not equal in all ``runs``, also among those of different sections."""
    values: dict[str, set[Value]] = defaultdict(set)
    for run in (run for run in runs if run.has_report):
        for field, value in zip(FIELDS, run.compared, strict=True):
            if value is not None and not (field.path == _BATCH_SIZE and except_batch):
                values[field.path].add(value)
    return [path for path, found in values.items() if len(found) > 1]
