from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.analysis.gate_metrics import ACCURACY_FLOOR, TOLERANCE_CAP
from jobs.comparison.analysis.regression import gate
from tests.comparison.comparisons import as_run, parity_report
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema_gate import Gate, GateSide

STEADY = (10_000.0, 10_050.0, 9_950.0, 10_020.0, 9_980.0, 10_010.0)


def runs(
    speeds: tuple[float, ...] = STEADY, *, framework: Any = "torch", accuracy: float = 0.95, **changes: Any
) -> list[RunSummary]:
    return [
        as_run(
            make_report(
                framework=framework,
                seed=seed,
                gpu=True,
                images_per_s=speed,
                accuracy=accuracy + seed * 1e-5,
                changes={path.replace("__", "."): value for path, value in changes.items()},
            )
        )
        for seed, speed in enumerate(speeds, start=1)
    ]


def scaled(factor: float) -> tuple[float, ...]:
    return tuple(factor * speed for speed in STEADY)


def only(found: Gate) -> GateSide:
    (side,) = found.sides
    return side


def test_gate_on_equal_runs_is_unchanged() -> None:
    found = gate(runs(), runs())
    assert (found.outcome, only(found).changes, found.triage) == ("unchanged", [], [])
    assert "no recorded setting has changed" in only(found).text


@pytest.mark.parametrize(
    ("factor", "outcome"), [(0.9, "regression"), (0.98, "unchanged"), (1.02, "unchanged"), (1.1, "improvement")]
)
def test_gate_on_speed_counts_change_beyond_floor(factor: float, outcome: str) -> None:
    assert gate(runs(scaled(factor)), runs()).outcome == outcome


VARIED = (10_000.0, 10_600.0, 9_500.0, 10_300.0, 9_800.0, 10_100.0, 9_700.0, 10_200.0)
NOISY = (10_000.0, 12_000.0, 8_000.0, 11_000.0, 9_000.0, 10_500.0)


def test_gate_on_noisy_baseline_is_refused_with_what_it_cannot_see() -> None:
    side = only(gate(runs(scaled(0.9)), runs(NOISY)))
    speed = side.metrics[0]
    assert (side.outcome, speed.outcome) == ("incomparable", "unseen")
    assert speed.tolerated is not None
    assert speed.tolerated > TOLERANCE_CAP
    assert f"this baseline cannot see less than {100 * speed.tolerated:.0f} % in steady training" in side.text
    # A change beyond even that is one.
    assert gate(runs(scaled(0.1)), runs(NOISY)).outcome == "regression"


def test_gate_states_limits_in_the_direction_of_the_change() -> None:
    slower, faster = (only(gate(runs(tuple(f * s for s in VARIED)), runs(VARIED))).metrics[:2] for f in (0.99, 1.01))
    # In logarithms both limits are equal: a speed that may fall by 9 % may rise by 10 %.
    for down, up in ((slower[0], faster[0]), (faster[1], slower[1])):
        assert down.tolerated is not None
        assert up.tolerated is not None
        assert (1 - down.tolerated) * (1 + up.tolerated) == pytest.approx(1)
        assert down.change is not None
        assert down.change < 0
    text = only(gate(runs(tuple(0.99 * s for s in VARIED)), runs(VARIED))).text
    assert f"-1.00 %, tolerated -{100 * (slower[0].tolerated or 0):.2f};" in text
    assert f"would have seen -{100 * (slower[0].visible or 0):.1f} % with 9 of 10 certainty" in text


def test_gate_leaves_suspect_runs_out_and_says_so() -> None:
    suspect = {"validity": {"status": "suspect", "causes": ["gpu_throttled"], "not_checked": []}}
    throttled = [
        as_run(make_report(seed=seed, run_id=f"hot-{seed}", gpu=True, images_per_s=6_000.0, changes=suspect))
        for seed in (7, 8)
    ]
    side = only(gate([*runs(), *throttled], [*runs(), *throttled[:1]]))
    assert (side.outcome, side.suspect_before, side.suspect_now) == ("unchanged", 1, 2)
    assert side.metrics[0].n_now == len(STEADY)
    assert "left out as suspect: 1 of the runs before, 2 now" in side.text
    side = only(gate(throttled, runs()))
    assert side.text.startswith("incomparable: every completed run now is suspect (gpu_throttled); run them again")
    side = only(gate(runs(), [*runs(STEADY[:4]), *throttled]))
    assert "the baseline has 4 completed runs that count, its variance needs 5" in side.text


def test_gate_with_one_disturbed_baseline_run_still_sees_a_regression() -> None:
    assert gate(runs(scaled(0.9)), runs((*STEADY, 5_000.0))).outcome == "regression"


def days_apart(speeds: tuple[float, ...], first: int, step: int = 1) -> list[RunSummary]:
    return [
        replace(run, run_id=f"{first}-{day}", started_at_utc=run.started_at_utc + timedelta(days=first + step * day))
        for day, run in enumerate(runs(speeds))
    ]


def test_gate_on_another_day_tolerates_what_days_differ() -> None:
    beside = only(gate(runs(scaled(0.94)), runs()))
    later = only(gate(days_apart(scaled(0.94), 60, 0), [*runs(), *days_apart(STEADY, 1)]))
    assert (beside.outcome, later.outcome) == ("regression", "unchanged")
    assert (later.metrics[0].sessions_before, later.metrics[0].sessions_now) == (7, 1)
    assert "6 against 12 runs, 1 against 7 sessions" in later.text


def test_gate_of_many_sides_is_held_by_one_level() -> None:
    """Holm: what is one change of three here is one of six there, so more of it is tolerated."""
    alone = gate(runs(VARIED), runs(VARIED))
    both = gate([*runs(VARIED), *runs(framework="tensorflow")], [*runs(VARIED), *runs(framework="tensorflow")])
    visible = [found.sides[-1].metrics[0].visible for found in (alone, both)]
    assert None not in visible
    assert visible[0] < visible[1]  # type: ignore[operator]


@pytest.mark.parametrize(("before", "now", "outcome"), [(None, 2.0, "incomparable"), (None, None, "unchanged")])
def test_gate_on_cpu_takes_no_quota_as_unlimited(before: float | None, now: float | None, outcome: str) -> None:
    def on_cpu(quota: float | None) -> list[RunSummary]:
        changes = {"environment.cpu.quota_cores": quota}
        return [as_run(make_report(seed=seed, changes=changes)) for seed in range(1, 7)]

    found = only(gate(on_cpu(now), on_cpu(before)))
    assert found.outcome == outcome
    assert ("environment.cpu.quota_cores (unlimited → 2.0)" in found.text) == (outcome == "incomparable")


@pytest.mark.parametrize(
    ("change", "outcome"),
    [(-0.01, "regression"), (-0.5 * ACCURACY_FLOOR, "unchanged"), (0.01, "improvement")],
)
def test_gate_on_accuracy_counts_both_directions(change: float, outcome: str) -> None:
    assert gate(runs(accuracy=0.95 + change), runs()).outcome == outcome


def test_gate_on_faster_but_less_accurate_is_regression_naming_both() -> None:
    side = only(gate(runs(scaled(1.2), accuracy=0.9), runs()))
    assert side.outcome == "regression"
    assert side.text.startswith("regression: test accuracy 95.00 → 90.00 % (-5.00 points")
    assert "better all the same: steady training 10,005 → 12,006 images/s (+20.00 %" in side.text


def test_gate_on_more_failed_runs_is_regression() -> None:
    failed = as_run(make_report(seed=9, gpu=True, status="failed", images_per_s=None))
    side = only(gate([*runs(), failed], runs()))
    assert side.outcome == "regression"
    assert "1 of 7 runs did not complete, against 0 of 6 before" in side.text
    assert only(gate([*runs(), failed], [*runs(), failed])).outcome == "unchanged"


def test_gate_ignores_parity_traces() -> None:
    assert gate([*runs(), as_run(parity_report("torch"))], runs()).outcome == "unchanged"
    assert gate(runs(), [*runs(), as_run(parity_report("tensorflow"))]).outcome == "unchanged"


def test_gate_on_all_runs_failed_is_regression() -> None:
    failed = [as_run(make_report(seed=9, gpu=True, status="failed", images_per_s=None))]
    assert only(gate(failed, runs())).outcome == "regression"


def test_gate_after_driver_upgrade_names_only_driver() -> None:
    before = runs(environment__driver_version="550.54", environment__cuda_driver_version="12.4")
    side = only(gate(runs(scaled(0.9), environment__driver_version="570.12"), before))
    assert side.text.endswith("; only the driver changed: 550.54 → 570.12")
    assert [change.field for change in side.changes] == [
        "environment.cuda_driver_version",
        "environment.driver_version",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment__framework": {"name": "torch", "version": "2.16.0"}, "environment__cudnn_version": "9.9"},
         "only the framework changed: 2.15.0 → 2.16.0"),
        ({"environment__image": {"ref": "i:2", "digest": "sha256:2"}, "environment__python_version": "3.14.0"},
         "only the image changed: sha256:1 → sha256:2"),
        ({"devices__0__power_limit_w": 350.0}, "only the power limit changed: 700 → 350"),
        ({"devices__0__uuid": "GPU-1"}, "only the GPU changed: GPU-00000000-0000-0000-0000-000000000000 → GPU-1"),
        ({"environment__python_version": "3.14.0"}, "only the Python changed: 3.13.1 → 3.14.0"),
        ({"environment__os": "Linux 7"}, "only the environment.os changed: Linux 6.12 → Linux 7"),
        ({"environment__driver_version": "580.1", "environment__os": "Linux 7"},
         "driver changed: 570.124.06 → 580.1; environment.os changed: Linux 6.12 → Linux 7"),
    ],
)  # fmt: skip
def test_gate_after_change_names_cause(changes: dict[str, Any], said: str) -> None:
    image: dict[str, Any] = {"environment__image": {"ref": "i:1", "digest": "sha256:1"}}
    now = runs(**{**image, **changes})
    assert only(gate(now, runs(**image))).text.endswith(f"; {said}")


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        (("tensorflow", "torch"), "both frameworks are slower: look at what they share, the node or the driver"),
        (("torch",), "only torch is slower: look at its image or the framework itself"),
    ],
)
def test_gate_triage_names_slower_frameworks(slow: tuple[str, ...], said: str) -> None:
    before = [run for framework in ("tensorflow", "torch") for run in runs(framework=framework)]
    now = [
        run
        for framework in ("tensorflow", "torch")
        for run in runs(scaled(0.8 if framework in slow else 1.0), framework=framework)
    ]
    found = gate(now, before)
    assert found.outcome == "regression"
    assert found.triage == [f"lenet, matched: {said}"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config__batch_size": 128}, "config.batch_size (64 → 128)"),
        ({"config__dataset__sha256": "7b" * 32}, f"config.dataset.sha256 ({'5a' * 32} → {'7b' * 32})"),
        ({"devices__0__name": "Other"}, "devices[].name (Example GPU → Other)"),
        ({"config__execution": "compiled"}, "config.execution (eager → compiled)"),
    ],
)
def test_gate_on_other_configuration_is_incomparable(changes: dict[str, Any], said: str) -> None:
    found = gate(runs(scaled(0.5), **changes), runs())
    assert found.outcome == "incomparable"
    assert said in only(found).text


def test_gate_with_allowed_field_is_unchanged_but_data_cannot_be_allowed() -> None:
    other_data = runs(config__dataset__sha256="7b" * 32)
    assert gate(other_data, runs(), allow=["config.dataset.sha256"]).outcome == "incomparable"
    assert gate(runs(config__batch_size=128), runs(), allow=["config.batch_size"]).outcome == "unchanged"


def test_gate_on_missing_or_new_framework_is_incomparable() -> None:
    assert gate(runs(), runs(framework="tensorflow")).outcome == "incomparable"
    assert [side.outcome for side in gate(runs(), runs(framework="tensorflow")).sides] == ["incomparable"] * 2


def test_gate_with_small_baseline_is_incomparable() -> None:
    found = only(gate(runs(), runs(STEADY[:4])))
    assert found.outcome == "incomparable"
    assert "the baseline has 4 completed runs, its variance needs 5" in found.text


def test_gate_outcome_regression_outranks_incomparable() -> None:
    now = [*runs(scaled(0.5)), *runs(framework="tensorflow")]
    assert gate(now, runs()).outcome == "regression"


@pytest.mark.parametrize("speeds", [(1e-300, 1e300, 1.0, 2.0, 3.0), (0.0,) * 5, (1e308,) * 5, (1e-300,) * 5])
def test_gate_on_extreme_speeds_gives_text(speeds: tuple[float, ...]) -> None:
    for now, before in ((speeds, STEADY), (STEADY, speeds), (speeds, speeds)):
        assert gate(runs(now), runs(before)).sides[0].text
