"""Judges the order of two sides' runs: whether slow changes of a machine could look like a difference of the sides."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

MAX_MEMORY_EXCESS: Final = 2.0
MAX_DRIFT_EXCESS: Final = 4.0
"""Largest :class:`Excess` with which an order is judged. Up to there the test divides by its root, and a drift alone
never passes it."""

_CORRELATIONS: Final = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
"""Correlations of one run's noise with the next one's for which an order is checked."""


class Started(NamedTuple):
    """When a run started, and whether it is of the second side."""

    at: datetime
    is_second: bool


class Excess(NamedTuple):
    """The variance that an order gives the sides' mean difference, over the usual one of a random order.

    ``memory``: with noise in which each run's correlates with the next one's (AR(1)); ``drift``: with a steady drift.
    ``later`` is whether the second side's runs came later on average.
    """

    memory: float
    drift: float
    later: bool

    @property
    def largest(self) -> float:
        return max(self.memory, self.drift)


def order_excess(places: Sequence[Iterable[Started]]) -> Excess:
    """The largest excess of this order, over all correlations of noise with memory.

    It is below 1 if the sides take turns; one side after the other gives about as many as a side has runs. Runs of
    different ``places`` are independent, except that a drift is the same in all.
    """
    orders = [_Order.of(place) for place in places]
    memory = 0.0
    for correlation in _CORRELATIONS:
        variances = [order.variances(correlation) for order in orders]
        here, usual = (
            sum(one[at] * order.weight**2 for order, one in zip(orders, variances, strict=True)) for at in (0, 1)
        )
        memory = max(memory, _ratio(here, usual))
    drifts = [order.drift() for order in orders]
    leaked = sum(order.weight * leak for order, (leak, _) in zip(orders, drifts, strict=True))
    usual = sum(order.weight**2 * spread for order, (_, spread) in zip(orders, drifts, strict=True))
    return Excess(memory, _ratio(leaked**2, usual), later=leaked > 0)


def turns(place: Iterable[Started]) -> int:
    """How often the next run is of the other side."""
    sides = [started.is_second for started in sorted(place)]
    return sum(one != other for one, other in pairwise(sides))


def follow(places: Sequence[Sequence[Started]]) -> bool:
    """Whether in all ``places`` the runs of one side, the same in all, started after those of the other."""
    return any(
        all(
            min(run.at for run in place if run.is_second == last)
            > max(run.at for run in place if run.is_second != last)
            for place in places
        )
        for last in (True, False)
    )


def _ratio(value: float, usual: float) -> float:
    # Runs that all started together have neither.
    return value / usual if usual > 1e-12 else 0.0


class _Order(NamedTuple):
    """A place's runs by start; ``steps`` are groups of (position, contrast, runs) that started together."""

    steps: list[tuple[float, float, int]]
    scale: float
    """Variance of the mean difference with independent noise of variance 1."""

    @classmethod
    def of(cls, place: Iterable[Started]) -> _Order:
        runs = sorted(place)
        second = sum(run.is_second for run in runs)
        first = len(runs) - second
        steps: list[tuple[float, float, int]] = []
        position = 0
        for _, together in groupby(runs, key=lambda run: run.at):
            sides = [run.is_second for run in together]
            contrast = sum(1 / second if side else -1 / first for side in sides)
            steps.append((position + (len(sides) - 1) / 2, contrast, len(sides)))
            position += len(sides)
        return cls(steps, 1 / first + 1 / second)

    @property
    def weight(self) -> float:
        """As in :func:`.permutation.two_sample_p`, before division by their sum."""
        return 1 / self.scale

    def variances(self, correlation: float) -> tuple[float, float]:
        """Variance of the mean difference with this noise: in this order, and on average over all orders."""
        here = pairs = before = count_before = 0.0
        last = self.steps[0][0]
        runs = sum(count for *_, count in self.steps)
        for position, contrast, count in self.steps:
            decay = correlation ** (position - last)
            before, count_before, last = before * decay, count_before * decay, position
            here += contrast * (contrast + 2 * before)
            pairs += count * (count - 1 + 2 * count_before)
            before, count_before = before + contrast, count_before + count
        # Runs that start together share their slow noise, and each has its own besides.
        return here, self.scale * (1 - pairs / (runs * (runs - 1)))

    def drift(self) -> tuple[float, float]:
        """The difference by a drift of 1 a run in this order, and its variance over all orders."""
        runs = sum(count for *_, count in self.steps)
        middle = (runs - 1) / 2
        squares = sum(count * (position - middle) ** 2 for position, _, count in self.steps)
        return sum(position * contrast for position, contrast, _ in self.steps), self.scale * squares / (runs - 1)
