"""Ranks of a run that died before its report: their log lines count it once, and say how far each came."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from jobs.comparison.build import build
from jobs.comparison.input.load import Loaded, load
from jobs.comparison.input.logs import DAMAGED_RANK_LINE
from jobs.comparison.input.started import NO_REPORT
from jobs.comparison.output.markdown import render_markdown
from jobs.errors import BadInput
from jobs.report import SCHEMA_VERSION, to_line
from jobs.report.rank_record import RANK_MARKER
from jobs.report.started import StartedRun
from tests.comparison.comparisons import terminal
from tests.support.ranked_reports import rank_line, ranked_report
from tests.support.reports import STARTED, make_report

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.report.rank_record import RankRecord

WHO = "of 4 ranks rank 1 (node-1) ended epoch 2, rank 2 (node-2) ended epoch 1, rank 3 (node-3) ended no epoch"
LINES = [rank_line(1, epochs=1), rank_line(1), rank_line(2, epochs=1), rank_line(3, epochs=0)]


def load_text(*lines: str) -> Loaded:
    return load(["-"], io.BytesIO("\n".join([to_line(make_report()), *lines]).encode()))


def started_of(record: RankRecord, **changes: object) -> StartedRun:
    names = {"run_id", "attempt", "started_at_utc", "config", "kubernetes"}
    data = {"schema_version": SCHEMA_VERSION, "status": "started", "status_reason": None}
    return StartedRun.model_validate(data | {name: getattr(record, name) for name in names} | changes)


def died(loaded: Loaded) -> list[tuple[str, str, str | None]]:
    return [(run.run_id, run.status, run.status_reason) for run in loaded.runs if not run.has_report]


def test_rank_lines_without_a_report_are_one_failed_run_with_its_ranks() -> None:
    loaded = load_text(*(f"[pod] {line.to_line()}" for line in LINES))
    assert died(loaded) == [("died", "failed", f"{NO_REPORT}; {WHO}; no line of rank 0")]
    comparison = build(loaded)
    one, several = comparison.sections
    assert (several.ranks, several.reduction, several.scaling) == (4, "exact", "strong")
    assert several.sides[0].runs_by_status == {"failed": 1}
    assert one.sides[0].runs_by_status == {"completed": 1}
    assert [(seen.rank, seen.node, seen.epoch, seen.ended) for seen in several.runs[0].ranks_seen] == [
        (1, "node-1", 2, False),
        (2, "node-2", 1, False),
        (3, "node-3", 0, False),
    ]
    assert WHO in render_markdown(comparison)
    assert "rank 2 (node-2) ended epoch 1" in " ".join(terminal(comparison).split())


def test_rank_lines_in_any_order_give_the_same_run() -> None:
    lines = [line.to_line() for line in LINES]
    assert load_text(*lines).runs == load_text(*reversed(lines), lines[0]).runs


def test_rank_lines_and_files_of_several_pods_are_read(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(to_line(make_report()))
    for line in LINES:
        (tmp_path / f"pod-{line.part.rank}.log").write_text(f"text\n{line.to_line()}\n")
    (tmp_path / "pod-1.log").write_text("".join(f"{line.to_line()}\n" for line in LINES[:2]))
    loaded = load([str(tmp_path)], io.BytesIO())
    assert [row[0] for row in died(loaded)] == ["died"]
    assert loaded.skipped == ()


@pytest.mark.parametrize("changes", [{}, {"run_id": "guessed", "attempt": 3}])
@pytest.mark.parametrize(
    ("status", "reason"), [("started", None), ("failed", "peer lost: rank 2"), ("interrupted", "SIGTERM")]
)
def test_rank_lines_and_started_record_of_one_run_count_once(
    changes: dict[str, object], status: str, reason: str | None
) -> None:
    record = started_of(LINES[0], status=status, status_reason=reason, **changes)
    (run,) = died(load_text(record.to_line(), *(line.to_line() for line in LINES)))
    expected = "interrupted" if status == "interrupted" else "failed"
    assert run == ("died", expected, f"{reason or NO_REPORT}; {WHO}; no line of rank 0")


def test_rank_lines_of_a_run_with_a_report_are_ignored() -> None:
    report = ranked_report(4, seed=9, run_id="died")
    assert died(load_text(to_line(report), *(line.to_line() for line in LINES))) == []
    # Also of a run whose report has another id, since it went on from a checkpoint.
    resumed = ranked_report(4, seed=9, run_id="other", changes={"started_at_utc": STARTED})
    assert died(load_text(to_line(resumed), *(line.to_line() for line in LINES))) == []


def test_rank_lines_of_two_runs_are_two_failed_runs() -> None:
    other = rank_line(1, run_id="also", config=LINES[0].config.model_copy(update={"seed": 10}))
    assert [row[0] for row in died(load_text(LINES[0].to_line(), other.to_line()))] == ["died", "also"]


def test_rank_line_that_is_cut_is_named_and_the_rest_counts() -> None:
    loaded = load_text(LINES[0].to_line(), LINES[1].to_line()[:200])
    assert [(skipped.reason, skipped.lines) for skipped in loaded.skipped] == [(DAMAGED_RANK_LINE, (3,))]
    assert "rank 1 (node-1) ended epoch 1;" in str(died(loaded))


def test_rank_line_of_another_schema_or_type_is_skipped_with_the_reason() -> None:
    bad = LINES[0].to_line().replace('"schema_version":"1.4"', '"schema_version":"2.0"')
    wrong = LINES[0].to_line().replace('"ended":false', '"ended":0')
    loaded = load_text(bad, wrong)
    assert died(loaded) == []
    assert ["is no rank record" in skipped.reason for skipped in loaded.skipped] == [True, True]


def test_rank_lines_alone_are_refused_with_how_far_they_came() -> None:
    with pytest.raises(BadInput, match=r"none of the runs has a report: .*of 4 ranks rank 1 \(node-1\) ended epoch 2"):
        load(["-"], io.BytesIO("\n".join(line.to_line() for line in LINES).encode()))


def test_rank_lines_of_many_ranks_and_hostile_text_are_cut() -> None:
    part = LINES[0].part.model_copy(update={"node": "\x1b[2J" + "x" * 5000})
    lines = [
        rank_line(1, ranks=4, part=part.model_copy(update={"rank": rank})).model_copy(update={"ranks": 10**9})
        for rank in range(200)
    ]
    loaded = load_text(*(line.to_line() for line in lines))
    comparison = build(loaded)
    assert len(str(died(loaded))) < 1500
    assert len(comparison.sections[-1].runs[0].ranks_seen) == 64
    assert "\x1b[2J" not in terminal(comparison)


def test_marker_of_rank_lines_is_unknown_to_earlier_releases() -> None:
    assert not RANK_MARKER.startswith(("MNIST_JOBS_REPORT", "MNIST_JOBS_STARTED"))
