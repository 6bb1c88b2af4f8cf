"""Any number that the report's schema allows, in any field, goes through the whole merge into all four files."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.comparison.build import build
from jobs.comparison.input.load import Loaded, load
from jobs.comparison.output.csv import csv_lines
from jobs.comparison.output.html.page import render_html
from jobs.comparison.output.html.timelines import timelines
from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.write import json_pieces
from jobs.comparison.schema import Comparison
from jobs.errors import JobError
from jobs.report import LINE_MARKER, Report
from jobs.report.schema import json_schema
from tests.comparison.comparisons import parity_report, terminal
from tests.comparison.hostile import leaves
from tests.comparison.output.html.pages import SERIES
from tests.support.every_field import with_every_field
from tests.support.programs import rounds
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.choices import FrameworkName

FieldPath = tuple[str | int, ...]
Changes = dict[FieldPath, int | float]

NUMBERS = (
    *(1.797e308, -1.797e308, 1.01e30, 0.99e30, 2.3e-308, 5e-324, -5e-324, -0.0, -1.0, 1e-31),
    *(0, -1, 2**53 + 1, 2**63, 2**64, 10**30, 10**308, 10**309, 10**4200),
)
"""The ends of what a float and an integer hold, and the values next to the limit of what is plausible."""


@cache
def _reports(framework: FrameworkName, runs: int) -> list[dict[str, Any]]:
    """``runs`` timed runs with every field of the schema, and the traces of both precisions."""
    timed = [
        make_report(
            framework=framework,
            seed=seed,
            images_per_s=10_000.0 + 37 * seed,
            gpu=True,
            timeseries=True,
            changes={"timeseries": SERIES},
        )
        for seed in range(1, runs + 1)
    ]
    documents = [with_every_field(json.loads(report.model_dump_json()), json_schema()) for report in timed]
    for document in documents:
        # A resumed run has no GPU figures, a run in blocks needs a plan, and the traces are of runs of their own.
        document |= {"earlier_attempts": [], "parity": None, "status_reason": None}
        document["config"]["design"] = None
    traces = [parity_report(framework, precision=precision) for precision in ("fp64", "fp32")]
    return documents + [json.loads(report.model_dump_json()) for report in traces]


def _number_paths() -> list[FieldPath]:
    paths: dict[tuple[str, ...], FieldPath] = {}
    for document in _reports("torch", 1):
        for path, value in leaves(document):
            if isinstance(value, int | float) and not isinstance(value, bool):
                # Of a list, the first item; of the phases, each, since training and evaluation are used differently.
                place = path[:2] if path[0] == "phases" and path[-1] in {"start_s", "end_s", "epoch"} else ()
                paths.setdefault((str(place), *(str(part) for part in path if isinstance(part, str))), path)
    return list(paths.values())


PATHS = _number_paths()
changes = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(NUMBERS), max_size=6)


def _change(document: dict[str, Any], changed: Changes) -> None:
    """Set each value that the schema allows at its place, if the report has that place."""
    for path, value in changed.items():
        *parents, last = path
        parent: Any = document
        try:
            for part in parents:
                parent = parent[part]
            before = parent[last]
        except (KeyError, IndexError, TypeError):
            continue
        parent[last] = value
        try:
            Report.from_data(document)
        except ValidationError:
            parent[last] = before


def _loaded(documents: list[dict[str, Any]]) -> Loaded | None:
    lines = "\n".join(LINE_MARKER + json.dumps(document) for document in documents)
    try:
        loaded = load(["-"], io.BytesIO(lines.encode()))
    except JobError:
        # Two reports of one run, where the attempt was changed.
        return None
    assert loaded.skipped == ()
    return loaded


def _write(loaded: Loaded, baseline: Loaded | None) -> Comparison | None:
    """The comparison in every form; ``None`` where the runs are not comparable."""
    try:
        comparison = build(loaded, baseline=baseline, expected={None: 7})
    except JobError:
        return None
    assert render_html(comparison, timelines(loaded.runs))
    assert render_markdown(comparison)
    assert terminal(comparison)
    assert list(csv_lines(comparison))
    assert Comparison.model_validate_json(b"".join(json_pieces(comparison))) == comparison
    return comparison


def _merge(runs: int, everywhere: Mapping[FieldPath, int | float], once: Changes) -> Comparison | None:
    documents = [deepcopy(document) for side in ("tensorflow", "torch") for document in _reports(side, runs)]
    for document in documents:
        _change(document, dict(everywhere))
    _change(documents[0], once)
    _change(documents[-1], once)
    loaded = _loaded(documents)
    return None if loaded is None else _write(loaded, loaded if runs > 1 else None)


def test_merge_unchanged_reports_has_a_section_and_a_trace() -> None:
    comparison = _merge(5, {}, {})
    assert comparison is not None
    assert comparison.gate is not None
    assert comparison.parity != []
    assert len(PATHS) > 200


@settings(
    max_examples=rounds(40, 5000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # A failing example is small as it is found. A smaller one would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(runs=st.sampled_from([1, 5]), everywhere=changes, once=changes)
@example(runs=1, everywhere={("devices", 0, "memory_total_bytes"): 10**309}, once={})
@example(runs=1, everywhere={}, once={("training", "gpu", "power_w", "n"): 10**309})
def test_merge_extreme_numbers_in_any_fields_ends_without_an_error(
    runs: int, everywhere: Changes, once: Changes
) -> None:
    _merge(runs, everywhere, once)
