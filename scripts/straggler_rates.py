"""Measures how often an equal rank is called slow, and a slow one found: ``make straggler-rates``.

Most runs are simulated. In the others each rank is a thread that sleeps in its steps. Takes three minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

from measurement import ROOT, add_output_option, circumstances, write_results

SLEEPING_RANKS = 4
AT_ONCE = 4
"""Runs that sleep at once. They hardly use the processors."""


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.support import simulated_ranks as simulated  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (default: 1)")
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of a cell (default: 1000)")
    parser.add_argument("--slept", type=int, default=100, help="runs that sleep, with and without a slow rank (100)")
    add_output_option(parser, "straggler_rates")
    arguments = parser.parse_args()
    measured = circumstances()
    slept = _slept(arguments.slept)
    rows: list[dict[str, Any]] = []
    for case in simulated.CASES:
        row = asdict(case)
        for ranks in simulated.RANKS:
            found, false = (
                simulated.named(case, ranks, slow=slow, seed=arguments.seed, count=arguments.runs)
                for slow in (True, False)
            )
            row[str(ranks)] = {"found": found["found"], "false": false["false"]}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    content = {"seed": arguments.seed, "runs": arguments.runs, "slept": slept, "rows": rows}
    write_results(arguments.output, content, measured=measured)
    return 0


def _slept(runs: int) -> dict[str, int]:
    """In how many of ``runs`` with a slow rank it was named, and in how many of equal ranks any."""
    counts = {"ranks": SLEEPING_RANKS, "runs": runs, "found": 0, "beside": 0, "false": 0}
    slow_ranks = [slow for seed in range(runs) for slow in (seed % SLEEPING_RANKS, None)]
    with ProcessPoolExecutor(AT_ONCE, mp_context=multiprocessing.get_context("fork")) as pool:
        for slow, named in zip(slow_ranks, pool.map(_named, slow_ranks), strict=True):
            if slow is None:
                counts["false"] += bool(named)
            else:
                counts["found"] += slow in named
                counts["beside"] += bool(named - {slow})
    print(counts, file=sys.stderr, flush=True)
    return counts


def _named(slow: int | None) -> set[int]:
    """The ranks that are named in a run in which ``slow`` sleeps longer."""
    from jobs.comparison.analysis.stragglers import stragglers_of  # noqa: PLC0415
    from jobs.comparison.input.run_summary import ReportLocation, summarize  # noqa: PLC0415
    from tests.support.sleeping_ranks import sleeping_run  # noqa: PLC0415

    run = summarize(sleeping_run(SLEEPING_RANKS, slow=slow), source="slept", location=ReportLocation())
    assert run.rank_work is not None
    return {straggler.rank for straggler in stragglers_of(run, run.rank_work)}


if __name__ == "__main__":
    sys.exit(main())
