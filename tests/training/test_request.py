"""The fingerprint of a run changes with everything that decides what the run computes, and with nothing else."""

from __future__ import annotations

from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from jobs.adapter import FrameworkVersions, RunSpec
from jobs.checkpoint.metadata import RunFingerprint, differences
from jobs.errors import BadInput
from jobs.recipes import LENET, Adam, Recipe, Relu, Scaling, Sgd
from jobs.report.configuration import Config, Design
from jobs.training import request as request_module
from jobs.training.options import TrainRequest
from jobs.training.request import NOT_IN_FINGERPRINT, check_request, parse_design, resolve_spec, run_fingerprint

REQUEST = TrainRequest()
VERSIONS = FrameworkVersions(name="torch", version="2.15.0", cuda_runtime=None, cudnn=None)


class _Framework:
    """The one choice that a framework has in a run's settings."""

    def default_execution(self, device: str, input_path: str, *, in_shards: bool = False) -> str:  # noqa: ARG002
        return "graph" if (device, input_path) == ("gpu", "resident") else "eager"


FRAMEWORK: Any = _Framework()


def fingerprint(
    request: TrainRequest = REQUEST, device: Any = "cpu", recipe: Recipe | None = None, **changes: Any
) -> RunFingerprint:
    arguments: dict[str, Any] = {"dataset_sha256": "5a" * 32, "versions": VERSIONS} | changes
    spec = resolve_spec(request, FRAMEWORK, device)
    return run_fingerprint(request, spec if recipe is None else spec.replace(recipe=recipe), **arguments)


OF_TYPE = {int: 7, float: 0.7, bool: True, str: "elsewhere", Path: Path("elsewhere")}
OPTIONS = get_type_hints(TrainRequest)


def other_value(name: str) -> Any:
    """A value of the option's type that is neither its default nor what that resolves to on a CPU."""
    is_optional = NoneType in get_args(OPTIONS[name])
    kind = get_args(OPTIONS[name])[0] if is_optional else OPTIONS[name]
    if get_origin(kind) is not Literal:
        return OF_TYPE[kind]
    spec = resolve_spec(REQUEST, FRAMEWORK, "cpu")
    return next(value for value in get_args(kind) if value not in {getattr(REQUEST, name), getattr(spec, name, None)})


@pytest.mark.parametrize("name", OPTIONS)
def test_fingerprint_of_another_option_differs_unless_it_is_excluded(name: str) -> None:
    device = "gpu" if name == "device" else "cpu"
    other = fingerprint(replace(REQUEST, **{name: other_value(name)}), device=device)
    changed = differences(fingerprint(), other)
    if name in NOT_IN_FINGERPRINT:
        assert changed == ""
    else:
        assert name in changed


@pytest.mark.parametrize("name", RunSpec.model_fields)
def test_fingerprint_of_another_resolved_setting_differs(name: str) -> None:
    spec = resolve_spec(REQUEST, FRAMEWORK, "cpu")
    value = replace(LENET, learning_rate=0.5) if name == "recipe" else other_value(name)
    other = spec.replace(**{name: value})
    plain, changed = (run_fingerprint(REQUEST, one, "5a" * 32, VERSIONS) for one in (spec, other))
    assert name in differences(plain, changed)


OTHER_CONTENT: dict[str, Any] = {
    "name": "other",
    "layers": (*LENET.layers[:4], Relu(), *LENET.layers[5:], Relu()),
    "scaling": Scaling(mean=0.13, std=0.3081),
    "optimizer": Sgd(momentum=0.9),
    "initializer": "glorot_uniform",
    "learning_rate": 0.01,
    "batch_size": 128,
    "epochs": 6,
    "seed": 2,
    "parameter_count": 1,
    "target_accuracy": 0.5,
    "reference_accuracy": {"mnist": (0.1,), "synthetic": (0.1,)},
}


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_fingerprint_of_a_changed_recipe_names_the_field_and_both_values(name: str) -> None:
    other = fingerprint(recipe=replace(LENET, **{name: OTHER_CONTENT[name]}))
    assert f"recipe.{name}" in differences(fingerprint(), other)


def test_fingerprint_of_another_momentum_is_named_in_words() -> None:
    """The fault that this replaces: such a run was taken for the finished one, and nothing was trained."""
    other = fingerprint(recipe=replace(LENET, optimizer=OTHER_CONTENT["optimizer"]))
    assert differences(fingerprint(), other) == "recipe.optimizer is Sgd(momentum=0.5) there and Sgd(momentum=0.9) here"
    adam = fingerprint(recipe=replace(LENET, optimizer=Adam(beta_1=0.9, beta_2=0.99, epsilon=1e-7)))
    assert "recipe.optimizer is Sgd(momentum=0.5) there and Adam(" in differences(fingerprint(), adam)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset_sha256": "6b" * 32}, "dataset_sha256"),
        ({"versions": replace(VERSIONS, version="2.16.0")}, "framework is torch 2.15.0 there and torch 2.16.0 here"),
        ({"versions": replace(VERSIONS, name="tensorflow")}, "framework"),
    ],
)
def test_fingerprint_of_other_data_or_framework_differs(changes: dict[str, Any], named: str) -> None:
    assert named in differences(fingerprint(), fingerprint(**changes))


def test_fingerprint_of_another_release_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    monkeypatch.setattr(request_module, "__version__", "99.0.0")
    assert "mnist_jobs is" in differences(before, fingerprint())


def test_fingerprint_has_a_new_option_without_anything_else_changed() -> None:
    extended = make_dataclass("Extended", [("weight_decay", float)], bases=(TrainRequest,), frozen=True, kw_only=True)
    given = {field.name: getattr(REQUEST, field.name) for field in fields(REQUEST)}
    one, other = (fingerprint(extended(**given, weight_decay=value)) for value in (0.0, 0.1))
    assert differences(one, other) == "weight_decay is 0.0 there and 0.1 here"


def test_excluded_fields_are_options_and_have_a_reason() -> None:
    assert OPTIONS.keys() > NOT_IN_FINGERPRINT.keys()
    assert not NOT_IN_FINGERPRINT.keys() & RunSpec.model_fields.keys()
    assert all(reason for reason in NOT_IN_FINGERPRINT.values())


def test_every_resolved_setting_is_an_option_and_is_reported() -> None:
    assert RunSpec.model_fields.keys() <= OPTIONS.keys()
    assert RunSpec.model_fields.keys() <= Config.model_fields.keys()


def test_parse_design_of_a_place_gives_its_parts() -> None:
    assert parse_design("plan-1:12:1") == Design(plan_id="plan-1", block=12, position=1)
    assert parse_design("d.2026_x:0:0") == Design(plan_id="d.2026_x", block=0, position=0)


@pytest.mark.parametrize(
    "text",
    ["", "plan", "plan:1", "plan:1:2", "plan:-1:0", "plan:1:0:0", "plan:1:x:0", "plan:٣:0", "plan: 1:0", "../p:1:0",
     ":1:0", "p" * 129 + ":1:0", "plan:1:0\n", "plan:9999999999:0"],
)  # fmt: skip
def test_parse_design_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_design(text)
    assert f"--design {text!r} is not PLAN:BLOCK:POSITION" in str(refused.value)


def test_check_request_design_of_several_trials_is_refused() -> None:
    with pytest.raises(BadInput, match="--trials 5: --design is the place of one run"):
        check_request(replace(REQUEST, design="plan:1:0", trials=5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"execution": "compiled"}, "--execution compiled: not with --ranks or --reduction; leave it out"),
        ({"parity_steps": 3}, "--parity-steps traces one rank that trains whole batches"),
        ({"repeat": 2}, "--repeat 2: not with --ranks or --reduction"),
    ],
)
def test_check_request_in_shards_refuses_what_is_for_whole_batches(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_request(replace(REQUEST, ranks=2, reduction="exact", **changes))


def test_resolve_spec_takes_the_recipe_values_where_nothing_is_given() -> None:
    spec = resolve_spec(REQUEST, FRAMEWORK, "gpu")
    assert (spec.epochs, spec.batch_size, spec.learning_rate, spec.seed) == (5, 64, 0.001, 1)
    assert (spec.input, spec.execution, spec.device) == ("resident", "graph", "gpu")
    assert resolve_spec(replace(REQUEST, protocol="published"), FRAMEWORK, "gpu").input == "streamed"
    given = replace(REQUEST, epochs=0, seed=0, input="streamed", execution="compiled")
    spec = resolve_spec(given, FRAMEWORK, "cpu")
    assert (spec.epochs, spec.seed, spec.input, spec.execution) == (0, 0, "streamed", "compiled")
