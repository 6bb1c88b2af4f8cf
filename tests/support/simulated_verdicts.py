"""Verdicts on simulated comparisons, whose truth is known, by the code that a merge uses.

Frameworks are equal if the medians of their speeds are, since the verdict compares medians.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.comparison.analysis.evidence import weigh
from jobs.comparison.analysis.statistics import holm_correction
from jobs.comparison.analysis.verdict import decide_verdict
from jobs.comparison.input.metrics import HEADLINE
from jobs.comparison.input.run_summary import ReportLocation, RunSummary, summarize
from jobs.report.configuration import Design
from tests.support.reports import STARTED, make_report
from tests.support.simulated_runs import with_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from jobs.choices import FrameworkName

    Floats = NDArray[np.float64]
    Sides = NDArray[np.bool_]
    Noise = Callable[[np.random.Generator, Sides], Floats]
    """Relative noise of scale 1 of runs in their order, of which those marked are of the second side."""

COMPARISONS = 1000
FRAMEWORKS: Final[tuple[FrameworkName, FrameworkName]] = ("tensorflow", "torch")
Order = Literal["in turn", "shuffled", "in pairs", "in threes", "one after the other"]
Outcome = Literal["first", "second", "equivalent", "inconclusive", "confounded", "too_few_runs"]


def normal(random: np.random.Generator, second: Sides) -> Floats:
    return random.normal(0, 1, second.size)


def heavy_tailed(random: np.random.Generator, second: Sides) -> Floats:
    """Student's t with 3 degrees of freedom."""
    return random.standard_t(3, second.size)


def bimodal(random: np.random.Generator, second: Sides) -> Floats:
    """Two states of the machine, equally likely."""
    return random.choice([-1.0, 1.0], second.size) + random.normal(0, 0.1, second.size)


def with_memory(random: np.random.Generator, second: Sides, *, correlation: float) -> Floats:
    """AR(1), with standard deviation 1."""
    noise = random.normal(0, 1, second.size)
    for at in range(1, noise.size):
        noise[at] = correlation * noise[at - 1] + np.sqrt(1 - correlation**2) * noise[at]
    return noise


def unequal(random: np.random.Generator, second: Sides, *, ratio: float) -> Floats:
    """The second side has all of the spread, the first a share of it."""
    return random.normal(0, 1, second.size) * np.where(second, 1.0, ratio)


def skewed(random: np.random.Generator, second: Sides, *, first: float) -> Floats:
    """Exponential with slow outliers and median 0; the ``first`` side's is this share of the second's."""
    return np.asarray((np.log(2) - random.exponential(1, second.size)) * np.where(second, 1.0, first))


MEMORY: Final = {correlation: partial(with_memory, correlation=correlation) for correlation in (0.5, 0.9)}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How the runs come about. Unblocked runs come in ``order``, blocked ones in blocks whose order chance decides.

    ``drift`` is the change of speed over the session, ``node_spread`` the standard deviation of the nodes' speeds, and
    ``preference`` that of what each node adds to the second side alone. ``apart``: unblocked, each side has a node.
    """

    noise: Noise = normal
    order: Order = "in turn"
    drift: float = 0.0
    nodes: int = 1
    node_spread: float = 0.0
    preference: float = 0.0
    apart: bool = False


@dataclass(frozen=True)
class Scenario:
    """A row of the table: false verdicts are counted under each of its ``conditions``, power under the first."""

    name: str
    conditions: tuple[Conditions, ...]


def _remembering(**more: Any) -> tuple[Conditions, ...]:
    return tuple(Conditions(noise=noise, **more) for noise in MEMORY.values())


SCENARIOS: Final = (
    Scenario("in turn, one node", (Conditions(),)),
    Scenario("one framework after the other, noise with memory", _remembering(order="one after the other")),
    Scenario("the same, and a drift of 10 %", _remembering(order="one after the other", drift=0.1)),
    Scenario("one node a side, nodes differ by 5 %", (Conditions(apart=True, node_spread=0.05),)),
    Scenario(
        "unequal spread of the sides",
        tuple(Conditions(noise=partial(unequal, ratio=ratio)) for ratio in (0.5, 0.2, 0.05)),
    ),
    Scenario(
        "skewed noise, equal or of one side",
        tuple(Conditions(noise=partial(skewed, first=share)) for share in (1.0, 0.1)),
    ),
    Scenario("heavy tails (t with 3 degrees of freedom)", (Conditions(noise=heavy_tailed),)),
    Scenario("bimodal noise", (Conditions(noise=bimodal),)),
    Scenario("in turn, noise with memory, drift of 10 %", _remembering(order="in turn", drift=0.1)),
    Scenario("shuffled, noise with memory, drift of 10 %", _remembering(order="shuffled", drift=0.1)),
    Scenario("in pairs, noise with memory, drift of 10 %", _remembering(order="in pairs", drift=0.1)),
    Scenario("in threes, noise with memory, drift of 10 %", _remembering(order="in threes", drift=0.1)),
    *(
        Scenario(
            f"{nodes} nodes that differ by 10 %",
            tuple(
                Conditions(nodes=nodes, node_spread=0.1, order="shuffled", preference=preference)
                for preference in (0.0, 0.03)
            ),
        )
        for nodes in (2, 3, 5, 10)
    ),
)
"""The second condition of several nodes adds that each prefers one framework, by 3 % in standard deviation."""

FALSE_NOISE: Final = 0.05
"""Scale of the noise under which false verdicts are counted."""

POWER_NOISE: Final = 0.02
RUNS: Final = {False: (5, 10), True: (8, 10)}
"""Runs a side, or blocks, for which false verdicts are counted; power is counted for the last."""


def verdicts(
    conditions: Conditions,
    *,
    speed: float,
    seed: int | tuple[int, ...],
    blocked: bool,
    runs: int,
    noise: float,
    comparisons: int,
) -> Counter[Outcome]:
    """What is said of ``comparisons``, in which the second side is ``speed`` times as fast as the first.

    There are ``runs`` runs of each side, or blocks, for each node.
    """
    random = np.random.default_rng(seed)
    said: Counter[Outcome] = Counter()
    for _ in range(comparisons):
        simulate = _blocked if blocked else _unblocked
        sides = simulate(random, conditions, np.log(speed), runs, noise)
        evidence = weigh(sides)
        verdict = decide_verdict(sides, evidence, holm_correction([evidence.p])[0])
        if verdict.kind == "faster":
            said["second" if verdict.faster == FRAMEWORKS[1] else "first"] += 1
        else:
            said[verdict.kind] += 1  # type: ignore[index]
    return said


def _blocked(
    random: np.random.Generator, conditions: Conditions, effect: float, runs: int, noise: float
) -> dict[FrameworkName, list[RunSummary]]:
    blocks = runs * conditions.nodes
    first_is_second = random.random(blocks) < 0.5
    second = np.stack([first_is_second, ~first_is_second], axis=1).ravel()
    node = np.repeat(np.arange(blocks) % conditions.nodes, 2)
    speeds = _log_speeds(random, conditions, effect, noise, second, node)
    designs = [Design(plan_id="plan", block=at // 2, position=at % 2) for at in range(second.size)]
    return _summaries(speeds, second, node, designs)


def _unblocked(
    random: np.random.Generator, conditions: Conditions, effect: float, runs: int, noise: float
) -> dict[FrameworkName, list[RunSummary]]:
    second = _ordered(random, conditions.order, runs * conditions.nodes)
    node = second.astype(int) if conditions.apart else random.integers(0, conditions.nodes, second.size)
    speeds = _log_speeds(random, conditions, effect, noise, second, node)
    return _summaries(speeds, second, node, [None] * second.size)


def _ordered(random: np.random.Generator, order: Order, runs: int) -> Sides:
    if order == "shuffled":
        return random.permutation(np.arange(2 * runs) % 2 == 0)
    length = {"in turn": 1, "in pairs": 2, "in threes": 3, "one after the other": runs}[order]
    at = np.arange(4 * runs)
    turn = at // length % 2 == int(random.random() < 0.5)
    # The same number of runs a side: of either side the first ones in this order.
    kept = np.where(turn, np.cumsum(turn), np.cumsum(~turn)) <= runs
    return np.asarray(turn[kept])


def _log_speeds(
    random: np.random.Generator,
    conditions: Conditions,
    effect: float,
    noise: float,
    second: Sides,
    node: NDArray[np.int_],
) -> Floats:
    count = max(2, conditions.nodes)
    nodes, preferences = random.normal(0, 1, (2, count)) * [[conditions.node_spread], [conditions.preference]]
    drift = conditions.drift * np.linspace(0, 1, second.size) * random.choice([-1.0, 1.0])
    return np.asarray(
        noise * conditions.noise(random, second) + nodes[node] + drift + second * (effect + preferences[node])
    )


def _template(framework: FrameworkName) -> RunSummary:
    return summarize(make_report(framework=framework), source="simulated", location=ReportLocation())


_TEMPLATES: Final = tuple(map(_template, FRAMEWORKS))


def _summaries(
    log_speeds: Floats, second: Sides, node: NDArray[np.int_], designs: list[Design | None] | list[Design] | list[None]
) -> dict[FrameworkName, list[RunSummary]]:
    sides: dict[FrameworkName, list[RunSummary]] = {framework: [] for framework in FRAMEWORKS}
    for at, (log_speed, design) in enumerate(zip(log_speeds, designs, strict=True)):
        template = _TEMPLATES[int(second[at])]
        run = with_values(
            template,
            {HEADLINE.name: float(1000 * np.exp(log_speed))},
            started_at_utc=STARTED + timedelta(minutes=2 * at),
            finished_at_utc=STARTED + timedelta(minutes=2 * at + 1),
            node=f"node-{node[at]}",
            design=design,
        )
        sides[template.framework].append(run)
    return sides
