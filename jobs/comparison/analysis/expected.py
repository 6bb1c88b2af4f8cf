"""Counts the runs that were expected and of which nothing arrived, and says which they are where that is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.choices import FRAMEWORKS, FrameworkName
from jobs.comparison.text import join_limited
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.input.run_summary import RunSummary

    Sides = Mapping[FrameworkName, Sequence[RunSummary]]

Expected = dict[FrameworkName | None, int]
"""Runs of each recipe and protocol by framework; ``None`` stands for every framework that has runs there."""

MAX_EXPECTED: Final = 1_000_000
_MAX_NAMED: Final = 20
_EXPECTED: Final = re.compile(r"(?:(?P<framework>[a-z]+)=)?(?P<runs>[0-9]{1,9})")


class MissingRuns(NamedTuple):
    """``runs`` of a side's expected ones left neither report nor started record; ``which`` says which, in words."""

    runs: int
    which: str


def parse_expected(texts: Iterable[str]) -> Expected:
    """The values of ``--expect``: ``10``, or ``torch=10``.

    Raises:
        BadInput: a value is no such text, a framework is not known, or two values are about the same.
    """
    expected: Expected = {}
    for text in texts:
        found = _EXPECTED.fullmatch(text)
        runs = 0 if found is None else int(found["runs"])
        name = None if found is None or found["framework"] is None else found["framework"]
        framework = next((known for known in FRAMEWORKS if known == name), None)
        if not 1 <= runs <= MAX_EXPECTED or (name is not None and framework is None):
            raise BadInput(
                f"--expect {text!r}: give the number of runs of each framework, 1 to {MAX_EXPECTED}, or FRAMEWORK=N "
                f"with {' or '.join(FRAMEWORKS)}"
            )
        if framework in expected:
            raise BadInput(f"--expect {text!r}: {expected[framework]} was given before for the same; give one of them")
        expected[framework] = runs
    return expected


def missing_runs(sides: Sides, expected: Expected) -> dict[FrameworkName, MissingRuns]:
    """By framework, the runs of a section that are missing. A retry of an index is no run more than was expected."""
    missing: dict[FrameworkName, MissingRuns] = {}
    for framework in FRAMEWORKS:
        runs = sides.get(framework, ())
        wanted = expected.get(framework, expected.get(None, 0) if runs else 0)
        count = wanted - len({_place(run) for run in runs})
        if count > 0:
            others = [run.seed for other, of_other in sides.items() if other != framework for run in of_other]
            missing[framework] = MissingRuns(count, _which(runs, wanted, count, others))
    return missing


def _place(run: RunSummary) -> tuple[int, int] | str:
    """What a run is of the expected ones: its Job's index and its seed, or outside an Indexed Job a run of its own."""
    return run.run_id if run.index is None else (run.index, run.seed)


def _which(runs: Sequence[RunSummary], wanted: int, count: int, others: Sequence[int]) -> str:
    """Which ``count`` of ``wanted`` runs are missing, if one rule finds exactly so many; ``others``: other seeds."""
    if not runs:
        return f"all {wanted}"
    indices, seeds = {run.index for run in runs}, {run.seed for run in runs}
    candidates = (
        ("index", [] if None in indices else [index for index in range(wanted) if index not in indices]),
        ("seed", sorted(set(others) - seeds)),
        ("seed", [seed for seed in range(min(seeds), min(seeds) + wanted) if seed not in seeds]),
    )
    for what, absent in candidates:
        if len(absent) == count:
            return f"{what} {join_limited([str(number) for number in absent], _MAX_NAMED)}"
    return "which is not known"
