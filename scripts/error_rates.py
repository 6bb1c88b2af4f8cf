"""Measures how often a verdict is wrong or missed in simulated comparisons: ``make error-rates``.

Each row of the table is one way in which runs come about, with blocked and with unblocked runs. Takes ten minutes for
each seed on two processors.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from gate_fleet_rates import gate_and_fleet_rates
from measurement import ROOT, add_output_option, circumstances, write_results

SPEEDS = {"power_5": 1.05, "power_10": 1.1}


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.support import simulated_verdicts as simulated  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the simulation (default: 1)")
    parser.add_argument("--merges", type=int, default=1000, help="gates and fleets a cell, of the first seed (1000)")
    parser.add_argument(
        "--comparisons", type=int, default=simulated.COMPARISONS, help="of a cell (default: %(default)s)"
    )
    add_output_option(parser, "error_rates")
    arguments = parser.parse_args()
    measured = circumstances()
    # Forked processes have this one's modules and path.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:

        def submit(conditions: Any, **cell: Any) -> Any:
            return pool.submit(partial(simulated.verdicts, conditions, comparisons=arguments.comparisons, **cell))

        def start(row: int, *, blocked: bool) -> dict[str, Any]:
            conditions = simulated.SCENARIOS[row].conditions
            runs = simulated.RUNS[blocked]
            equal = {"blocked": blocked, "speed": 1.0, "noise": simulated.FALSE_NOISE}
            faster = {"blocked": blocked, "noise": simulated.POWER_NOISE, "runs": runs[-1]}
            return {
                "equal": [
                    [
                        submit(one, seed=(seed, row, at), runs=n, **equal)
                        for at, one in enumerate(conditions)
                        for n in runs
                    ]
                    for seed in arguments.seeds
                ],
                **{
                    name: [submit(conditions[0], seed=(seed, row), speed=speed, **faster) for seed in arguments.seeds]
                    for name, speed in SPEEDS.items()
                },
            }

        started = [
            (scenario.name, {name: start(row, blocked=name == "blocked") for name in ("blocked", "unblocked")})
            for row, scenario in enumerate(simulated.SCENARIOS)
        ]
        results = []
        for name, designs in started:
            results.append({"name": name, **{design: _counts(cells) for design, cells in designs.items()}})
            print(results[-1], file=sys.stderr, flush=True)
    found = {"gate_and_fleet": gate_and_fleet_rates(arguments.seeds[0], arguments.merges)}
    content = {
        "comparisons": arguments.comparisons,
        "seeds": arguments.seeds,
        "false_noise_ratio": simulated.FALSE_NOISE,
        "power_noise_ratio": simulated.POWER_NOISE,
        "runs": list(simulated.RUNS[False]),
        "blocks": list(simulated.RUNS[True]),
    }
    write_results(arguments.output, {**content, "results": results, **found}, measured=measured)
    return 0


def _counts(cells: dict[str, Any]) -> dict[str, list[int]]:
    """For each seed: the most false verdicts of any condition, the fewest *confounded*, and what power found."""
    equal = [[cell.result() for cell in by_condition] for by_condition in cells["equal"]]
    return {
        "false": [max(said["first"] + said["second"] for said in by_condition) for by_condition in equal],
        "confounded": [min(said["confounded"] for said in by_condition) for by_condition in equal],
        **{name: [cell.result()["second"] for cell in cells[name]] for name in SPEEDS},
    }


if __name__ == "__main__":
    sys.exit(main())
