"""What exact sums cost: the speed of other ways to train with as many ranks, against that of ``exact``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from jobs.comparison.analysis.evidence import counted
from jobs.comparison.analysis.scaling import device_of, differing_fields, step_setting
from jobs.comparison.analysis.statistics import median, median_ratio, observed
from jobs.comparison.input.run_summary import last_attempts
from jobs.comparison.schema_scaling import ReductionCost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from jobs.choices import FrameworkName, Reduction
    from jobs.comparison.input.run_summary import RunSummary


class _Key(NamedTuple):
    recipe: str
    protocol: Literal["matched", "published"]
    framework: FrameworkName
    precision: str
    batch_size: float
    ranks: int
    device: str


def reduction_costs(runs: Sequence[RunSummary]) -> list[ReductionCost]:
    """A cost for each way to train, of which ``exact`` has runs with the same steps, ranks and device."""
    ways: dict[_Key, dict[Reduction | None, list[RunSummary]]] = defaultdict(lambda: defaultdict(list))
    for run in counted(last_attempts(runs)):
        steps = step_setting(run)
        if steps is not None:
            setting = run.rank_setting
            key = _Key(run.recipe, run.protocol, run.framework, *steps, setting.ranks, device_of(run))
            ways[key][setting.reduction].append(run)
    return [
        cost
        for key, found in sorted(ways.items())
        for other in (None, "fast")
        if (cost := _cost(key, other, found.get("exact", []), found.get(other, []))) is not None
    ]


def _cost(
    key: _Key, other: Reduction | None, exact_runs: list[RunSummary], other_runs: list[RunSummary]
) -> ReductionCost | None:
    exact, speeds = observed(exact_runs), observed(other_runs)
    ratio, middle, other_middle = median_ratio(speeds, exact), median(exact), median(speeds)
    if ratio is None or middle is None or other_middle is None:
        return None
    nodes, other_nodes = ({run.node for run in runs} for runs in (exact_runs, other_runs))
    on_other_nodes = not nodes & other_nodes
    return ReductionCost(
        **key._asdict(),
        other=other,
        exact_runs=len(exact),
        other_runs=len(speeds),
        exact_images_per_s=middle,
        other_images_per_s=other_middle,
        ratio=ratio.ratio,
        # Runs on other nodes differ by the nodes too, which no interval of theirs shows.
        low=None if on_other_nodes else ratio.low,
        high=None if on_other_nodes else ratio.high,
        differences=[
            *differing_fields([*exact_runs, *other_runs]),
            *(["environment.kubernetes.node"] if on_other_nodes else []),
        ],
    )
