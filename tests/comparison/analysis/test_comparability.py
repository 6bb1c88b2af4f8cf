from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.analysis.comparability import group_comparable
from jobs.comparison.fields import ENVIRONMENT, FIELDS
from jobs.errors import BadInput, NotComparable
from tests.comparison.comparisons import as_run as run
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.input.run_summary import RunSummary


def pair(*, gpu: bool = True, protocol: Any = "matched", torch: dict[str, Any] | None = None) -> list[RunSummary]:
    """One run of each framework; ``torch`` changes fields of torch's."""
    return [
        run(make_report(framework="tensorflow", gpu=gpu, protocol=protocol)),
        run(make_report(framework="torch", gpu=gpu, protocol=protocol, changes=torch)),
    ]


@pytest.mark.parametrize("field", [*FIELDS, *ENVIRONMENT], ids=lambda field: field.path)
@pytest.mark.parametrize("gpu", [False, True])
def test_field_of_report_is_readable(field: Any, gpu: bool) -> None:  # noqa: FBT001
    value = field.read(make_report(gpu=gpu))
    assert value is None or isinstance(value, str | int | float)


def test_group_of_equal_runs_is_one() -> None:
    (found,) = group_comparable(pair())
    assert (found.recipe, found.protocol) == ("lenet", "matched")
    assert found.held_equal["config.batch_size"] == 64
    assert [(difference.field, difference.why) for difference in found.differences] == [
        ("environment.framework.version", "framework"),
        ("config.execution", "framework"),
    ]


def test_group_by_recipe_and_protocol_separates_runs() -> None:
    runs = [
        run(make_report(recipe=recipe, protocol=protocol, run_id=f"{recipe}-{protocol}"))
        for recipe in ("lenet", "basic-cnn")
        for protocol in ("matched", "published")
    ]
    assert [(found.recipe, found.protocol) for found in group_comparable(runs)] == [
        ("basic-cnn", "matched"),
        ("basic-cnn", "published"),
        ("lenet", "matched"),
        ("lenet", "published"),
    ]


@pytest.mark.parametrize(
    ("field", "path", "value", "shown"),
    [
        ("config.parameter_count", "config.parameter_count", 7, "431080"),
        ("config.epochs", "config.epochs", 9, "2"),
        ("config.repeat", "config.repeat", 25, "1"),
        ("config.batch_size", "config.batch_size", 128, "64"),
        ("config.learning_rate", "config.learning_rate", 0.01, "0.001"),
        ("config.dropout", "config.dropout", False, "yes"),
        ("config.initializer", "config.initializer", "zeros", "kaiming_uniform"),
        ("config.optimizer.name", "config.optimizer.name", "adam", "sgd"),
        ("config.optimizer.momentum", "config.optimizer.momentum", 0.9, "0.5"),
        ("config.optimizer.beta_1", "config.optimizer.beta_1", 0.9, "not given"),
        ("config.optimizer.beta_2", "config.optimizer.beta_2", 0.9, "not given"),
        ("config.optimizer.epsilon", "config.optimizer.epsilon", 1e-8, "not given"),
        ("config.optimizer.form", "config.optimizer.form", "torch's own", "matched"),
        ("config.precision", "config.precision", "tf32", "fp32"),
        ("config.numerics.compute_dtype", "config.numerics.compute_dtype", "bfloat16", "float32"),
        ("config.numerics.variable_dtype", "config.numerics.variable_dtype", "float64", "float32"),
        ("config.numerics.tf32_matmul", "config.numerics.tf32_matmul", True, "no"),
        ("config.numerics.tf32_convolution", "config.numerics.tf32_convolution", True, "no"),
        ("config.numerics.deterministic", "config.numerics.deterministic", True, "no"),
        ("config.input", "config.input", "streamed", "resident"),
        ("devices[].name", "devices.0.name", "Other GPU", "Example GPU"),
        ("devices[].power_limit_w", "devices.0.power_limit_w", 300.0, "700"),
        ("environment.driver_version", "environment.driver_version", "580.1", "570.x"),
    ],
)
def test_group_with_differing_field_is_refused_or_allowed_by_name(
    field: str, path: str, value: Any, shown: str
) -> None:
    runs = pair(torch={path: value})
    with pytest.raises(NotComparable) as refusal:
        group_comparable(runs)
    message = str(refusal.value)
    assert f"{field}: " in message
    assert f"{shown} (tensorflow: tensorflow-lenet-matched-1.json)" in message
    assert "(torch: torch-lenet-matched-1.json)" in message
    assert f"--allow {field}" in message
    assert "\n" not in message

    (found,) = group_comparable(runs, allow=[field])
    assert (field, "allowed") in [(difference.field, difference.why) for difference in found.differences]
    assert field not in found.held_equal


def test_group_of_three_frameworks_is_refused_by_name() -> None:
    runs = pair()
    third: Any = "jax"
    with pytest.raises(NotComparable, match=r"lenet matched has runs of jax, tensorflow, torch, .* two of them"):
        group_comparable([*runs, replace(runs[0], framework=third)])


def test_group_of_gpu_and_cpu_is_refused() -> None:
    runs = [run(make_report(framework="tensorflow", gpu=True)), run(make_report(framework="torch"))]
    with pytest.raises(NotComparable, match=r"config\.device: cpu .* ≠ gpu"):
        group_comparable(runs)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("environment.cpu.model", "Other CPU", "Example CPU .* ≠ Other CPU"),
        ("environment.cpu.logical_cores", 96, "2 .* ≠ 96"),
        ("environment.cpu.affinity_cores", 1, "1 .* ≠ 2"),
        ("environment.cpu.quota_cores", 1.5, r"1\.5 .* ≠ unlimited"),
        ("config.numerics.intra_op_threads", 8, "2 .* ≠ 8"),
        ("environment.package_version", "0.0.9", r"0\.0\.9 .* ≠ 0\.1\.0"),
    ],
)
def test_group_compares_the_cpu_and_the_release_beside_a_gpu_too(
    path: str, value: Any, shown: str, *, gpu: bool
) -> None:
    with pytest.raises(NotComparable, match=rf"{re.escape(path)}: {shown}"):
        group_comparable(pair(gpu=gpu, torch={path: value}))
    (found,) = group_comparable(pair(gpu=gpu, torch={path: value}), allow=[path])
    assert (path, "allowed") in [(one.field, one.why) for one in found.differences]


@pytest.mark.parametrize(
    "path",
    [
        "environment.cpu.affinity_cores",
        "config.numerics.intra_op_threads",
        "config.numerics.inter_op_threads",
        "environment.cpu.model",
        "devices.0.memory_total_bytes",
    ],
)
def test_group_with_a_value_that_was_not_recorded_is_comparable(path: str) -> None:
    """Reports of schema 1.2 lack some of them, and TensorFlow does not know its GPU's memory without telemetry."""
    changes = {path: None, "devices.0.mapping_method": None} if path.startswith("devices") else {path: None}
    (found,) = group_comparable(pair(torch=changes))
    assert len(found.runs) == 2
    field = path.replace(".0.", "[].")
    assert found.held_equal[field] is not None


def test_group_with_a_quota_and_a_failed_run_without_limit_is_refused() -> None:
    """No limit is a value, and not a missing one."""
    failed = make_report(seed=2, gpu=True, status="failed")
    limited = pair(torch={"environment.cpu.quota_cores": 2.0})[1]
    with pytest.raises(NotComparable, match=r"environment\.cpu\.quota_cores: 2\.0 .* ≠ unlimited"):
        group_comparable([limited, run(failed)])


@pytest.mark.parametrize(("size", "shown"), [(40 * 2**30, "40 GiB"), (16 * 2**30, "16 GiB")])
def test_group_of_gpus_of_other_memory_sizes_is_refused(size: int, shown: str) -> None:
    with pytest.raises(NotComparable, match=rf"devices\[\]\.memory_total_bytes: {shown} .* ≠ 75 GiB"):
        group_comparable(pair(torch={"devices.0.memory_total_bytes": size}))


def test_group_of_gpus_whose_drivers_reserve_a_little_more_is_comparable() -> None:
    (found,) = group_comparable(pair(torch={"devices.0.memory_total_bytes": 80_100_000_000}))
    assert found.held_equal["devices[].memory_total_bytes"] == "75 GiB"


def test_group_lists_sets_of_seeds_that_differ() -> None:
    runs = [
        *(run(make_report(framework="tensorflow", seed=seed)) for seed in (1, 2, 3, 7)),
        *(run(make_report(framework="torch", seed=seed)) for seed in (2, 1)),
    ]
    (found,) = group_comparable(runs)
    (seeds,) = [difference for difference in found.differences if difference.field == "config.seed"]
    assert (seeds.why, seeds.values) == ("seeds", {"tensorflow": ["1 to 3", "7"], "torch": ["1 to 2"]})
    (found,) = group_comparable([*runs, *(run(make_report(framework="torch", seed=seed)) for seed in (3, 7))])
    assert "config.seed" not in {difference.field for difference in found.differences}


def test_group_with_several_differing_fields_names_all() -> None:
    runs = pair(torch={"config.batch_size": 128, "config.epochs": 9, "config.input": "streamed"})
    with pytest.raises(NotComparable) as refusal:
        group_comparable(runs)
    message = str(refusal.value)
    assert "3 fields differ" in message
    assert [line.split(": ")[1] for line in message.split("\n  ")[1:]] == [
        "config.epochs",
        "config.batch_size",
        "config.input",
    ]


def test_refusal_names_one_file_per_value_and_counts_the_rest() -> None:
    runs = [*pair(), *(run(make_report(seed=seed, gpu=True, changes={"config.epochs": 9})) for seed in (3, 4, 5))]
    with pytest.raises(NotComparable, match=r"9 \(torch: torch-lenet-matched-3\.json and 2 more\)"):
        group_comparable(runs)


def test_group_with_different_data_is_refused_and_cannot_be_allowed() -> None:
    other = {"config.dataset.sha256": "7b" * 32, "config.dataset.name": "synthetic"}
    runs = [run(make_report()), run(make_report(recipe="basic-cnn", changes=other))]
    with pytest.raises(NotComparable) as refusal:
        group_comparable(runs)
    message = str(refusal.value)
    assert f"config.dataset.sha256: mnist {'5a' * 32} (torch: torch-lenet-matched-1.json)" in message
    assert f"synthetic {'7b' * 32} (torch: torch-basic-cnn-matched-1.json)" in message
    assert "\n" not in message
    with pytest.raises(BadInput, match="never compared"):
        group_comparable(runs, allow=["config.dataset.sha256"])


def test_group_allowing_unknown_field_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"--allow 'batch': .*config\.batch_size"):
        group_comparable(pair(), allow=["batch"])


def test_group_of_published_runs_lists_initializer_and_optimizer_as_framework_differences() -> None:
    (found,) = group_comparable(pair(protocol="published"))
    listed = {difference.field: difference.values for difference in found.differences if difference.why == "framework"}
    assert listed["config.initializer"] == {"tensorflow": ["tensorflow's own"], "torch": ["torch's own"]}
    assert set(listed) == {
        "config.initializer",
        "config.optimizer.form",
        "config.execution",
        "environment.framework.version",
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config.execution": "compiled"}, r"config\.execution: compiled .* ≠ eager .* ≠ graph"),
        ({"environment.framework.version": "2.14.0"}, r"framework\.version: 2\.14\.0 .* ≠ 2\.15\.0 .* ≠ 2\.21\.0"),
        ({"config.numerics.settings": {"benchmark": "True"}}, r"settings: benchmark=True .* ≠ not given"),
    ],
)
def test_group_with_framework_field_differing_inside_a_side_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        group_comparable([*pair(), run(make_report(seed=2, gpu=True, changes=changed))])


def test_group_allows_inter_op_threads_to_differ_between_frameworks_only() -> None:
    field = "config.numerics.inter_op_threads"
    (found,) = group_comparable(pair(torch={field: 8}))
    assert (field, "framework") in [(one.field, one.why) for one in found.differences]
    other = run(make_report(seed=2, gpu=True, changes={field: 8}))
    with pytest.raises(NotComparable, match="inter_op_threads"):
        group_comparable([*pair(), other])


def test_group_with_failed_run_of_unknown_device_is_comparable() -> None:
    failed = make_report(seed=2, gpu=True, status="failed", changes={"devices": [], "environment.driver_version": None})
    (found,) = group_comparable([*pair(), run(failed)])
    assert len(found.runs) == 3
    assert found.held_equal["devices[].name"] == "Example GPU"


def test_group_with_failed_run_of_other_configuration_is_refused() -> None:
    failed = make_report(seed=2, gpu=True, status="failed", changes={"config.batch_size": 1})
    with pytest.raises(NotComparable, match="batch_size"):
        group_comparable([*pair(), run(failed)])


def test_group_with_unknown_power_limit_is_refused() -> None:
    with pytest.raises(NotComparable, match=r"devices\[\]\.power_limit_w: 700 .* ≠ unknown"):
        group_comparable(pair(torch={"devices.0.power_limit_w": None}))


def test_group_with_differing_environment_lists_differences() -> None:
    (found,) = group_comparable(
        pair(torch={"environment.python_version": "3.12.0", "environment.driver_version": "570.200"})
    )
    listed = {
        difference.field: difference.values for difference in found.differences if difference.why == "environment"
    }
    assert listed == {
        "environment.driver_version": {"tensorflow": ["570.124.06"], "torch": ["570.200"]},
        "environment.python_version": {"tensorflow": ["3.13.1"], "torch": ["3.12.0"]},
    }


def test_refusal_escapes_control_characters() -> None:
    with pytest.raises(NotComparable) as refusal:
        group_comparable(pair(torch={"devices.0.name": "evil\x1b[2J\nerror: forged"}))
    assert "\x1b" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_refusal_of_many_values_counts_the_rest() -> None:
    runs = [run(make_report(seed=seed, gpu=True, changes={"config.epochs": seed})) for seed in range(1, 40)]
    with pytest.raises(NotComparable, match=r"and 29 more; merge equal runs"):
        group_comparable(runs)
