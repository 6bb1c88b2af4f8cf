from __future__ import annotations

import io
import json
import random
from typing import TYPE_CHECKING

import pytest

from jobs.comparison.build import build
from jobs.comparison.input.load import Loaded, load
from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.write import json_pieces
from jobs.comparison.schema import Comparison
from jobs.report import to_line
from tests.comparison.comparisons import (
    TF_SPEEDS,
    TORCH_SPEEDS,
    as_run,
    compare,
    only_section,
    side,
    terminal,
    write_all,
)
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path


def test_build_one_side_has_no_verdict() -> None:
    comparison = compare(*side("torch", TORCH_SPEEDS))
    (section,) = comparison.sections
    assert section.verdict.kind == "one_side_only"
    assert section.ratios == []
    assert "only torch was run" in render_markdown(comparison)
    assert "only torch was run" in terminal(comparison)


@pytest.mark.parametrize("status", ["failed", "interrupted", "diverged", "below_reference"])
def test_build_incomplete_run_is_counted_and_leaves_the_speed_alone(status: str) -> None:
    bad = make_report(seed=6, status=status, images_per_s=1.0, accuracy=0.1)
    comparison = compare(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS), bad)
    (section,) = comparison.sections
    torch = section.sides[1]
    assert torch.runs_by_status == {"completed": 5, status: 1}
    speed = torch.metrics[0]
    assert (speed.name, speed.n, speed.median) == ("steady_images_per_s", 5, 12_000.0)
    assert [(entry.framework, entry.why, entry.runs) for entry in section.verdict.left_out] == [("torch", status, 1)]
    assert f"not counted: 1 torch run ({status})" in section.verdict.text
    assert len(section.runs) == 11
    assert f"{status}: the run is {status}" in render_markdown(comparison)
    accuracy = torch.metrics[2]
    assert (accuracy.name, accuracy.n) == ("test_accuracy_ratio", 6 if status == "below_reference" else 5)


def test_build_no_completed_run_gives_a_comparison() -> None:
    failed = [
        make_report(framework=framework, status="failed", images_per_s=None, accuracy=None)
        for framework in ("tensorflow", "torch")
    ]
    comparison = compare(*failed)
    assert comparison.sections[0].verdict.kind == "too_few_runs"
    assert "— (no run that counts)" in render_markdown(comparison)


def test_build_speeds_of_zero_give_no_ratio() -> None:
    section = only_section(*side("tensorflow", (0.0,) * 5), *side("torch", TORCH_SPEEDS))
    assert section.verdict.kind == "too_few_runs"
    assert "5 tensorflow runs (a speed of 0, which has no ratio to another)" in section.verdict.text
    assert "steady_images_per_s" not in [ratio.metric for ratio in section.ratios]


def test_build_observations_are_all_values() -> None:
    section = only_section(*side("tensorflow", TF_SPEEDS))
    assert [one.value for one in section.sides[0].metrics[0].observations] == sorted(TF_SPEEDS)


def test_build_accuracy_by_epoch() -> None:
    (section,) = compare(*side("tensorflow", TF_SPEEDS)).sections
    epochs = section.sides[0].epochs
    assert [(one.epoch, one.n) for one in epochs] == [(1, 5), (2, 5)]
    assert [one.median for one in epochs] == pytest.approx([0.94, 0.95])


def test_build_any_input_order_gives_the_same_bytes(tmp_path: Path) -> None:
    warned = [{"code": "b", "message": "x"}, {"code": "a", "message": "y"}]
    reports = [
        *side("tensorflow", TF_SPEEDS),
        *side("torch", TORCH_SPEEDS),
        *(make_report(recipe="basic-cnn", seed=seed, changes={"warnings": warned}) for seed in (1, 2)),
    ]
    outputs = set()
    for seed in range(4):
        random.Random(seed).shuffle(reports)  # noqa: S311
        comparison = compare(*reports)
        written = write_all(comparison, tmp_path)
        outputs.add((*(path.read_bytes() for path in written), terminal(comparison)))
    assert len(outputs) == 1


def test_build_skipped_input_is_listed() -> None:
    data = f"{to_line(make_report())}\n{to_line(make_report(seed=2))[:80]}\n".encode()
    comparison = build(load(["-"], io.BytesIO(data)))
    assert [(skipped.source, skipped.count) for skipped in comparison.skipped] == [("standard input", 1)]
    assert "- standard input: report line cut short or damaged\n" in render_markdown(comparison)


def test_build_allowed_field_is_listed() -> None:
    reports = [make_report(framework="tensorflow"), make_report(changes={"config.batch_size": 128})]
    comparison = compare(*reports, allow=("config.batch_size",))
    assert comparison.allowed == ["config.batch_size"]
    assert "| config.batch_size | 64 | 128 | allowed with --allow |" in render_markdown(comparison)


def test_build_copies_do_not_change_the_sections() -> None:
    loaded = Loaded(runs=(as_run(make_report()),), skipped=(), copies=0)
    copied = Loaded(runs=loaded.runs, skipped=(), copies=3)
    assert build(loaded).model_dump_json() == build(copied).model_dump_json()


def test_json_pieces_together_are_the_whole_document() -> None:
    # Text from a report that looks like the place of a list must not be taken for one.
    hostile = {"status_reason": '\n"runs": []\n  "observations": []'}
    reports = [*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS)]
    failed = make_report(recipe="basic-cnn", status="failed", images_per_s=None, changes=hostile)
    comparison = compare(*reports, failed)
    text = b"".join(json_pieces(comparison)).decode()
    assert text == comparison.model_dump_json(indent=2, ensure_ascii=True) + "\n"
    assert Comparison.model_validate_json(text) == Comparison.model_validate_json(comparison.model_dump_json())
    assert [len(section["runs"]) for section in json.loads(text)["sections"]] == [1, 10]


def test_lazy_list_is_read_like_a_list() -> None:
    section = only_section(*side("torch", TORCH_SPEEDS))
    rows = list(section.runs)
    assert (len(section.runs), section.runs[-1], section.runs[1:3]) == (5, rows[-1], rows[1:3])
    with pytest.raises(IndexError):
        section.runs[5]
