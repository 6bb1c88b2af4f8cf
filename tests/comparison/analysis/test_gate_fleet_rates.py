"""How often a gate calls an unchanged build a regression, and a fleet a healthy node slow. Seeded.

``make test-long`` simulates as many merges as docs/comparison.md states its rates for. ``make test`` simulates fewer,
with bounds that a program with just the stated rate passes with a probability of 99.9 % (binomial distribution).
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.support.programs import rounds
from tests.support.simulated_fleets import FleetCase, fleets, healthy_cases
from tests.support.simulated_gates import CASES, GateCase, gates

MERGES = 1000
TRIED = rounds(40, MERGES)


def max_count(rate: float) -> int:
    return int(rate * TRIED if TRIED == MERGES else stats.binom.ppf(0.999, TRIED, rate))


SAMPLED_GATES = CASES if TRIED == MERGES else (CASES[2], CASES[-1])
HEALTHY = [case for case in healthy_cases() if case.spread_is == "moment"]
SAMPLED_FLEETS = HEALTHY if TRIED == MERGES else [case for case in HEALTHY if case.nodes < 1000 and case.spread == 0.03]


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLED_GATES, ids=lambda case: case.name)
def test_gate_on_unchanged_builds_alarms_in_at_most_one_percent(case: GateCase) -> None:
    # Twice the spread between days that is assumed is beyond the promise; docs/comparison.md has its rate.
    rate = 0.01 if case.drift <= 0.03 else 0.05
    assert gates(case, speed=1.0, seed=4, count=TRIED)["regression"] <= max_count(rate)


@pytest.mark.slow
def test_gate_beside_the_baseline_finds_a_tenth_less_speed() -> None:
    (case,) = (case for case in CASES if case.name == "now beside the baseline, 10 runs")
    assert gates(case, speed=0.9, seed=4, count=TRIED)["regression"] >= TRIED - max_count(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLED_FLEETS, ids=lambda case: case.name)
def test_fleet_of_healthy_nodes_names_one_in_at_most_one_percent(case: FleetCase) -> None:
    assert fleets(case, seed=4, count=TRIED)["named"] <= max_count(0.01)


@pytest.mark.slow
def test_fleet_with_a_slow_node_names_it_in_at_least_95_percent() -> None:
    case = FleetCase(nodes=64, spread=0.03, slow=True)
    assert fleets(case, seed=4, count=TRIED)["found"] >= TRIED - max_count(0.05)
