from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, only_section, side
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.choices import FrameworkName


def test_verdict_of_clear_difference_names_winner_and_interval() -> None:
    section = only_section(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS))
    assert section.verdict.kind == "faster"
    assert section.verdict.faster == "torch"
    assert section.verdict.text.startswith("torch is faster: 1.200 times the steady training speed of tensorflow (90 %")
    ratio = section.ratios[0]
    assert (ratio.metric, ratio.numerator, ratio.denominator) == ("steady_images_per_s", "torch", "tensorflow")
    assert ratio.ratio == pytest.approx(1.2)


def test_verdict_of_swapped_sides_names_other_winner() -> None:
    verdict = only_section(*side("tensorflow", TORCH_SPEEDS), *side("torch", TF_SPEEDS)).verdict
    assert verdict.faster == "tensorflow"
    assert "tensorflow is faster: 1.200 times" in verdict.text


def test_verdict_of_equal_sides_is_equivalent() -> None:
    verdict = only_section(*side("tensorflow", TF_SPEEDS), *side("torch", TF_SPEEDS)).verdict
    assert (verdict.kind, verdict.faster) == ("equivalent", None)


def test_verdict_of_noisy_sides_is_inconclusive_with_reason() -> None:
    noisy = (5_000.0, 20_000.0, 9_000.0, 14_000.0, 10_000.0)
    verdict = only_section(*side("tensorflow", noisy), *side("torch", noisy[::-1])).verdict
    assert verdict.kind == "inconclusive"
    assert "; the interval includes 1; unstable: tensorflow's runs spread over 50 %" in verdict.text
    assert [(entry.framework, entry.spread_ratio) for entry in verdict.unstable] == [
        ("tensorflow", 0.5),
        ("torch", 0.5),
    ]


def test_verdict_of_small_effect_is_inconclusive_with_reason() -> None:
    below = (1000.0, 1001.0, 999.0, 1000.5, 999.5)
    above = (1020.0, 1040.0, 1019.0, 1041.0, 1021.0)
    verdict = only_section(*side("tensorflow", below), *side("torch", above)).verdict
    assert verdict.kind == "inconclusive"
    assert verdict.text.endswith("the interval excludes 1, but the effect is under 3 %")


def test_verdict_with_resumed_attempts_counts_no_lost_run() -> None:
    runs = [*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS)]
    whole = only_section(*runs)
    taken_up = [
        run.model_copy(update={"attempt": 1, "status": "interrupted", "status_reason": "interrupted by SIGTERM"})
        for run in runs[-3:]
    ]
    later = [run.model_copy(update={"attempt": 2}) for run in runs[-3:]]
    section = only_section(*runs[:-3], *taken_up, *later)
    assert section.verdict.text == whole.verdict.text
    assert section.sides[1].runs_by_status == {"completed": len(TORCH_SPEEDS)}
    assert [(row.attempt, row.status) for row in section.runs if row.run_id == runs[-1].run_id] == [
        (1, "interrupted"),
        (2, "completed"),
    ]
    # Left alone, the same attempts are runs that were lost.
    assert only_section(*runs[:-3], *taken_up).verdict.text != whole.verdict.text


def test_verdict_of_four_runs_is_too_few_runs() -> None:
    verdict = only_section(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS[:4])).verdict
    assert verdict.kind == "too_few_runs"
    assert "5 tensorflow and 4 torch" in verdict.text


def test_verdict_of_one_run_a_side_is_single_observation() -> None:
    verdict = only_section(*side("tensorflow", (100.0,)), *side("torch", (125.0,))).verdict
    assert verdict.kind == "single_observation"
    assert "torch / tensorflow is 1.250" in verdict.text


def test_verdict_with_unmeasured_run_lists_it_as_left_out() -> None:
    verdict = only_section(*side("tensorflow", TF_SPEEDS), make_report(seed=9, images_per_s=None)).verdict
    assert [entry.why for entry in verdict.left_out] == ["completed without the measurement"]


def test_verdict_with_large_p_is_inconclusive_with_reason() -> None:
    below = (1000.0, 1001.0, 1002.0, 1003.0, 1061.0)
    above = (1040.0, 1060.0, 1070.0, 1080.0, 1090.0)
    verdict = only_section(*side("tensorflow", below), *side("torch", above)).verdict
    assert verdict.kind == "inconclusive"
    assert verdict.p_value is not None
    assert verdict.p_value > 0.01
    assert "can be chance: p exceeds 0.01" in verdict.text


def test_verdict_p_values_of_all_sections_are_corrected_together() -> None:
    speeds: dict[FrameworkName, float] = {"tensorflow": 1000.0, "torch": 1200.0}
    reports = [
        make_report(framework=framework, recipe=recipe, seed=seed, images_per_s=speed + seed)
        for recipe in ("lenet", "basic-cnn")
        for framework, speed in speeds.items()
        for seed in range(1, 6)
    ]
    for section in compare(*reports).sections:
        assert section.verdict.kind == "faster"
        assert section.verdict.p_value == pytest.approx(2 / 252)
        assert section.verdict.p_value_table == pytest.approx(4 / 252)
        assert "p 0.0079, 0.016 over this table" in section.verdict.text


@pytest.mark.parametrize("status", ["failed", "interrupted", "diverged", "below_reference"])
def test_verdict_with_more_failures_on_faster_side_is_inconclusive(status: str) -> None:
    bad = make_report(seed=6, status=status)
    slow, fast = side("tensorflow", TF_SPEEDS), side("torch", TORCH_SPEEDS)
    verdict = only_section(*slow, *fast, bad).verdict
    assert (verdict.kind, verdict.faster) == ("inconclusive", None)
    assert verdict.text.startswith("inconclusive: 1 of torch's 6 runs did not complete, against 0 of tensorflow's 5; ")
    assert "torch is faster: 1.200 times" in verdict.text
    # The slower side's losses do not take the other's lead away, and one run of ten may be lost.
    lost = make_report(framework="tensorflow", seed=6, status=status)
    assert only_section(*slow, *fast, lost).verdict.faster == "torch"
    many = [*fast, *side("torch", TORCH_SPEEDS)]
    ten = [report.model_copy(update={"run_id": f"run-{at}"}) for at, report in enumerate(many)]
    assert only_section(*slow, *ten, bad).verdict.faster == "torch"


def test_verdict_with_suspect_runs_leaves_them_out_and_names_them() -> None:
    throttled = {"validity": {"status": "suspect", "causes": ["gpu_throttled"]}}
    disturbed = make_report(seed=6, images_per_s=1.0, changes=throttled)
    verdict = only_section(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS), disturbed).verdict
    assert verdict.kind == "inconclusive"
    assert "1 of torch's 6 runs did not complete undisturbed, against 0 of tensorflow's 5" in verdict.text
    assert "; disturbed, by their own account: 1 torch run (gpu_throttled)" in verdict.text
    assert "; not counted: 1 torch run (suspect)" in verdict.text
    assert [(entry.framework, entry.cause, entry.runs) for entry in verdict.suspect] == [("torch", "gpu_throttled", 1)]
    slow = make_report(framework="tensorflow", seed=6, images_per_s=1e6, changes=throttled)
    section = only_section(*side("tensorflow", TF_SPEEDS), slow, *side("torch", TORCH_SPEEDS), disturbed)
    assert section.verdict.faster == "torch"
    assert section.ratios[0].ratio == pytest.approx(1.2)


def test_verdict_with_only_suspect_runs_is_too_few_runs() -> None:
    throttled = {"validity": {"status": "suspect", "causes": ["gpu_throttled"]}}
    reports = [make_report(seed=seed, images_per_s=speed, changes=throttled) for seed, speed in enumerate(TORCH_SPEEDS)]
    verdict = only_section(*side("tensorflow", TF_SPEEDS), *reports).verdict
    assert verdict.kind == "too_few_runs"
    assert "5 torch runs (suspect)" in verdict.text


@pytest.mark.parametrize("speeds", [TORCH_SPEEDS, TF_SPEEDS], ids=["faster", "equivalent"])
def test_verdict_with_missing_runs_counts_them_as_lost(speeds: tuple[float, ...]) -> None:
    reports = [*side("tensorflow", TF_SPEEDS), *side("torch", speeds)]
    assert only_section(*reports, expected={None: 5}).verdict.kind in {"faster", "equivalent"}
    section = only_section(*reports, expected={"torch": 6})
    assert section.verdict.kind == "inconclusive"
    assert "1 of torch's 6 runs did not complete, against 0 of tensorflow's 5" in section.verdict.text
    assert "not counted: 1 torch run (missing: seed 6)" in section.verdict.text
    assert [side.runs_by_status for side in section.sides] == [{"completed": 5}, {"completed": 5, "missing": 1}]


def test_verdict_with_runs_missing_on_both_sides_stays() -> None:
    reports = [*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS)]
    verdict = only_section(*reports, expected={None: 6}).verdict
    assert verdict.kind == "faster"
    assert [(row.framework, row.why, row.runs) for row in verdict.left_out] == [
        ("tensorflow", "missing: seed 6", 1),
        ("torch", "missing: seed 6", 1),
    ]


def test_verdict_with_a_whole_side_missing_says_so() -> None:
    verdict = only_section(*side("tensorflow", TF_SPEEDS), expected={"torch": 5}).verdict
    assert verdict.kind == "one_side_only"
    assert "5 torch runs (missing: all 5)" in verdict.text
