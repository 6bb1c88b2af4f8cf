"""Measures the rate of wrong verdicts on simulated comparisons: ``make error-rates``."""

from __future__ import annotations

import argparse
import sys

from gate_fleet_rates import gate_and_fleet_rates
from measurement import ROOT, add_output_option, circumstances, write_results

SPEEDS = (1.0, 0.9, 1.1)


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.support.simulated_verdicts import COMPARISONS, NOISE, RUNS, verdicts  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the simulation (default: 1 2 3)")
    parser.add_argument("--merges", type=int, default=1000, help="gates and fleets a cell, of the first seed (1000)")
    add_output_option(parser, "error_rates")
    arguments = parser.parse_args()
    measured = circumstances()
    results = []
    for speed in SPEEDS:
        by_seed = [verdicts(speed, seed) for seed in arguments.seeds]
        row = {
            "speed": speed,
            "first": [kinds.count("first") for kinds in by_seed],
            "second": [kinds.count("second") for kinds in by_seed],
        }
        print(row, file=sys.stderr, flush=True)
        results.append(row)
    found = {"gate_and_fleet": gate_and_fleet_rates(arguments.seeds[0], arguments.merges)}
    content = {"comparisons": COMPARISONS, "runs": RUNS, "noise_ratio": NOISE, "seeds": arguments.seeds}
    write_results(arguments.output, {**content, "results": results, **found}, measured=measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
