"""How the runs of two sides came about: in blocks, on which nodes, in which order; and what can be compared in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jobs.comparison.analysis.order import (
    MAX_DRIFT_EXCESS,
    MAX_MEMORY_EXCESS,
    Excess,
    Started,
    follow,
    order_excess,
    turns,
)
from jobs.comparison.input.metrics import HEADLINE
from jobs.comparison.text import join_limited, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.permutation import Floats
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import ConfoundedBy

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]

_MAX_NAMED: Final = 3


class Place(NamedTuple):
    """Where a run trained. Runs outside Kubernetes name no node, runs on a CPU no GPU."""

    node: str | None
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([self.node or "", ", ".join(self.gpus)]).strip() or "an unnamed node"


class Comparable(NamedTuple):
    """Both sides' runs in one block or place, as the logarithms of their speeds; neither side is empty."""

    place: Place
    first: Floats
    second: Floats

    @property
    def log_ratio(self) -> float:
        """The logarithm of the second side's mean speed over the first's."""
        return float(self.second.mean() - self.first.mean())


class Confounding(NamedTuple):
    """What cannot be told apart from the framework, and the sentence that says so."""

    by: ConfoundedBy
    text: str


@dataclass(frozen=True, kw_only=True)
class Design:
    """What of two sides can be compared. ``first`` is the denominator of the ratio.

    ``parts`` are whole blocks if ``in_blocks``, else places. ``left_out`` are runs without a counterpart, each with the
    reason. ``excess`` is the largest of :class:`.order.Excess`, 1 for blocks.
    """

    in_blocks: bool
    parts: list[Comparable]
    left_out: list[tuple[RunSummary, str]] = field(default_factory=list)
    confounded: Confounding | None = None
    excess: float = 1.0
    remarks: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> dict[str | None, list[Comparable]]:
        """The parts by node. Runs that name no node count as of one."""
        by_node: dict[str | None, list[Comparable]] = defaultdict(list)
        for part in self.parts:
            by_node[part.place.node].append(part)
        return dict(by_node)

    @property
    def runs(self) -> tuple[int, int]:
        """How many runs of each side are compared."""
        return sum(part.first.size for part in self.parts), sum(part.second.size for part in self.parts)


def read_design(sides: Sides) -> Design:
    """The design of two ``sides``, whose runs all have a positive speed."""
    if all(any(run.design is not None for run in runs) for runs in sides.values()):
        return _blocks(sides)
    return _places(sides)


def _blocks(sides: Sides) -> Design:
    """Runs of one plan, block and place belong together: a plan may give every node blocks of the same numbers."""
    first, _ = sides
    members: dict[tuple[str, int, Place], list[RunSummary]] = defaultdict(list)
    left_out: list[tuple[RunSummary, str]] = []
    for run in chain.from_iterable(sides.values()):
        if run.design is None:
            left_out.append((run, "of no block, while others are"))
        else:
            members[run.design.plan_id, run.design.block, _place(run)].append(run)
    whole: dict[tuple[str, int, Place], list[RunSummary]] = {}
    for key, runs in sorted(members.items(), key=lambda item: (item[0][:2], str(item[0][2]))):
        if len({run.framework for run in runs}) == 2:
            whole[key] = runs
        else:
            left_out += [(run, f"its block has no {_other(sides, run)} run on the same node and GPU") for run in runs]
    orders = [sorted((run.design.position, run.framework) for run in runs if run.design) for runs in whole.values()]
    always_last = {order[-1][1] for order in orders if order[0][0] < order[-1][0]}
    confounded = None
    if len(orders) > 1 and len(always_last) == 1:
        (last,) = always_last
        confounded = f"the {last} run came last in every block: order and framework cannot be told apart"
    plans = sorted({plan for plan, _, _ in whole})
    remarks = [_plans_remark(plans)] if len(plans) > 1 else []
    return Design(
        in_blocks=True,
        parts=[_comparable(place, runs, first) for (_, _, place), runs in whole.items()],
        left_out=left_out,
        confounded=None if confounded is None else Confounding("order", confounded),
        remarks=[*remarks, *_clock_remarks(sides), *_order_remarks(list(whole.values()))],
    )


def _places(sides: Sides) -> Design:
    first, second = sides
    members: dict[Place, list[RunSummary]] = defaultdict(list)
    left_out: list[tuple[RunSummary, str]] = []
    for run in chain.from_iterable(sides.values()):
        if run.finished_at_utc < run.started_at_utc:
            left_out.append((run, "finished before it started, so its place in the order is not known"))
        else:
            members[_place(run)].append(run)
    shared = {
        place: runs
        for place, runs in sorted(members.items(), key=lambda item: str(item[0]))
        if len({run.framework for run in runs}) == 2
    }
    if not shared and {run.framework for runs in members.values() for run in runs} == set(sides):
        return Design(
            in_blocks=False, parts=[], left_out=left_out, confounded=Confounding("node", _apart(sides, members))
        )
    left_out += [
        (run, f"no {_other(sides, run)} run on the same node and GPU")
        for place, runs in members.items()
        if place not in shared
        for run in runs
    ]
    orders = [[Started(run.started_at_utc, run.framework == second) for run in runs] for runs in shared.values()]
    excess = order_excess(orders) if orders else Excess(1.0, 1.0, later=False)
    confounded = _out_of_turn(orders, excess, first, second)
    return Design(
        in_blocks=False,
        parts=[_comparable(place, runs, first) for place, runs in shared.items()],
        left_out=left_out,
        confounded=None if confounded is None else Confounding("order", confounded),
        excess=excess.largest,
        remarks=list(_overlaps(shared)),
    )


def _place(run: RunSummary) -> Place:
    return Place(run.node, run.gpu_uuids)


def _other(sides: Sides, run: RunSummary) -> FrameworkName:
    first, second = sides
    return second if run.framework == first else first


def _comparable(place: Place, runs: Sequence[RunSummary], first: FrameworkName) -> Comparable:
    logs: tuple[list[float], list[float]] = ([], [])
    for run in runs:
        speed = run.measured(HEADLINE.name)
        assert isinstance(speed, float)
        logs[run.framework != first].append(float(np.log(speed)))
    below, above = (np.array(sorted(side)) for side in logs)
    return Comparable(place, below, above)


def _apart(sides: Sides, members: Mapping[Place, Sequence[RunSummary]]) -> str:
    """The sentence on sides that share no place."""
    named = {
        framework: [str(place) for place, runs in members.items() if runs[0].framework == framework]
        for framework in sides
    }
    texts = [f"{framework} on {join_limited(sorted(places), _MAX_NAMED)}" for framework, places in named.items()]
    nodes = {
        framework: {place.node for place, runs in members.items() if runs[0].framework == framework}
        for framework in sides
    }
    what = "node" if set.isdisjoint(*nodes.values()) else "GPU"
    count = (
        f"one {what} a side" if all(len(places) == 1 for places in named.values()) else f"no {what} has runs of both"
    )
    return f"{count} ({'; '.join(texts)}): {what} and framework cannot be told apart"


def _out_of_turn(
    orders: Sequence[Sequence[Started]], excess: Excess, first: FrameworkName, second: FrameworkName
) -> str | None:
    """The sentence on an order in which slow changes can look like a difference; ``None`` for others."""
    if excess.memory <= MAX_MEMORY_EXCESS and excess.drift <= MAX_DRIFT_EXCESS:
        return None
    last, before = (second, first) if excess.later else (first, second)
    if follow(orders):
        return f"all {last} runs came after all {before} runs: order and framework cannot be told apart"
    if excess.drift > MAX_DRIFT_EXCESS:
        how = f"most {last} runs came later than the {before} runs"
    else:
        taken, runs = sum(map(turns, orders)), sum(map(len, orders))
        how = f"the frameworks took turns only {pluralize(taken, 'time')} in {runs} runs"
    return f"{how}: slow changes of the machine and the framework cannot be told apart"


def _plans_remark(plans: Sequence[str]) -> str:
    return (
        f"the blocks are of {len(plans)} plans: {join_limited(plans, _MAX_NAMED)}; p is right only if it was decided "
        "before the first result that all of them count: a plan that was added because another was inconclusive must "
        "be merged alone"
    )


def _clock_remarks(sides: Sides) -> Iterator[str]:
    for framework, runs in sides.items():
        backwards = sum(run.finished_at_utc < run.started_at_utc for run in runs)
        if backwards:
            yield f"{pluralize(backwards, f'{framework} run')} finished before it started: the clock was set meanwhile"


def _order_remarks(blocks: Sequence[Sequence[RunSummary]]) -> Iterator[str]:
    disagree = repeated = 0
    for runs in blocks:
        planned = sorted(runs, key=lambda run: run.design.position if run.design else 0)
        positions = {run.design.position for run in runs if run.design}
        disagree += len(positions) == 1 or any(
            one.started_at_utc > other.started_at_utc for one, other in pairwise(planned)
        )
        repeated += len(runs) > 2
    if disagree:
        yield f"in {pluralize(disagree, 'block')} the clocks or positions disagree with the plan's order"
    if repeated:
        yield f"{pluralize(repeated, 'block')} with more than one run of a framework: their mean counts"


def _overlaps(places: Mapping[Place, Sequence[RunSummary]]) -> Iterator[str]:
    """Only of named places: runs that name none may be of several machines."""
    for place, runs in places.items():
        if place == Place(None, ()):
            continue
        ordered = sorted(runs, key=lambda run: run.started_at_utc)
        latest = ordered[0].finished_at_utc
        overlapping = 0
        for run in ordered[1:]:
            overlapping += run.started_at_utc < latest
            latest = max(latest, run.finished_at_utc)
        if overlapping:
            yield (
                f"{pluralize(overlapping, 'run')} on {place} started before an earlier one ended: they shared it, or "
                "its clock was set meanwhile"
            )
