"""What a merge says beside its verdict: parity holds only where the code of every timed run was traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.choices import FRAMEWORKS
from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, parity_report, side, terminal
from tests.comparison.comparisons import compare as merge
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.comparison.schema_parity import SectionParity
    from jobs.report import Report


def timed() -> list[Report]:
    return [*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS)]


def traces(**options: Any) -> list[Report]:
    return [parity_report(framework, **{"precision": "fp32", **options}) for framework in FRAMEWORKS]


def said(*reports: Report, allow: str | None = None) -> SectionParity:
    (section,) = merge(*reports, allow=() if allow is None else (allow,)).sections
    return section.parity


def test_section_parity_of_agreeing_traces_agrees() -> None:
    comparison = merge(*timed(), *traces())
    (section,) = comparison.sections
    assert section.parity.outcome == "agree"
    assert section.parity.text == (
        "parity holds: what was timed computes the same function in both frameworks (2 steps in float64, seed 1: no "
        "difference, tolerance 1e-12; from 8 of their states, both round as float32 does)"
    )
    assert len(section.runs) == 10, "a run of no epoch is no timed run"
    assert comparison.parity[0].runs == {"tensorflow": "parity-tensorflow-fp32", "torch": "parity-torch-fp32"}


def test_section_parity_failure_is_shown_in_every_output() -> None:
    comparison = merge(
        *timed(), parity_report("tensorflow", precision="fp32"), parity_report("torch", precision="fp32", step=1.7)
    )
    text = (
        "parity fails: in float64, seed 1 the traces part at step 2 (loss, 1.0e-01 apart at most in 2 steps; tolerance"
    )
    assert comparison.sections[0].parity.outcome == "differ"
    assert comparison.sections[0].parity.text.startswith(text)
    first_item = next(line for line in render_markdown(comparison).splitlines() if line.startswith("- "))
    assert f"**{text}" in first_item
    assert text in " ".join(terminal(comparison).replace("\x1b[1;31m", "").replace("\x1b[0m", "").split())


def test_section_parity_with_coarse_rounding_differs() -> None:
    coarse = [parity_report("tensorflow", precision="fp32"), parity_report("torch", precision="fp32", error=1e-3)]
    parity = said(*timed(), *coarse)
    assert parity.outcome == "differ"
    assert parity.text.startswith("parity fails: seed 1: torch is further from float64 than float32 explains (")


def test_section_parity_with_other_initial_weights_differs() -> None:
    comparison = merge(*timed(), parity_report("tensorflow"), parity_report("torch", weights="bb"))
    assert comparison.sections[0].parity.text.startswith("parity fails: the initial weights differ (float64, seed 1)")


def test_section_parity_without_traces_says_how_to_record_them() -> None:
    parity = said(*timed())
    assert parity.outcome == "not_shown"
    assert parity.text == "parity is not shown; add --parity-steps 200 to one run of each framework"


def test_section_parity_of_unjudged_traces_is_not_shown() -> None:
    parity = said(*timed(), *traces(states=7))
    assert parity.outcome == "not_shown"
    assert "not judged, since parity-tensorflow-fp32 was compared with float64 from 7 states" in parity.text


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("environment.framework.version", "2.99.0", "torch 2.99.0 in fp32, eager, resident, on the CPU"),
        ("environment.package_version", "0.99.0", "mnist-jobs 0.99.0"),
        ("config.precision", "bf16", "torch 2.15.0 in bf16, eager"),
        ("config.execution", "compiled", "torch 2.15.0 in fp32, compiled"),
        ("config.input", "streamed", "torch 2.15.0 in fp32, eager, streamed"),
    ],
)
def test_section_parity_with_one_untraced_run_is_not_shown(field: str, value: str, named: str) -> None:
    untraced = make_report(framework="torch", seed=99, changes={field: value})
    parity = said(*timed(), untraced, *traces(), allow=field)
    assert parity.outcome == "not_shown"
    assert parity.text.startswith("both frameworks compute the same in what was traced: 2 steps in")
    assert "the timed code was not traced: torch" in parity.text
    assert named in parity.text
    assert said(*timed(), *traces()).outcome == "agree"


@pytest.mark.parametrize(
    ("field", "value"),
    [("parity.path.execution", "compiled"), ("parity.path.input", "streamed"), ("parity.path.device", "gpu")],
)
def test_section_parity_uses_path_of_trace(field: str, value: str) -> None:
    other = parity_report("torch", precision="fp32", changes={field: value})
    parity = said(*timed(), parity_report("tensorflow", precision="fp32"), other)
    assert parity.outcome == "not_shown"
    assert "torch 2.15.0 in fp32, eager, resident, on the CPU, mnist-jobs 0.1.0" in parity.text
    assert "tensorflow 2.21.0" not in parity.text


def test_section_parity_of_float64_traces_does_not_cover_float32_runs() -> None:
    parity = said(*timed(), parity_report("tensorflow"), parity_report("torch"))
    assert parity.outcome == "not_shown"
    assert "the timed code was not traced: tensorflow 2.21.0 in fp32, graph" in parity.text
    assert "; torch 2.15.0 in fp32, eager" in parity.text


def test_section_parity_of_two_traces_covers_two_kinds_of_runs() -> None:
    runs = [*timed(), make_report(framework="torch", seed=99, changes={"config.execution": "compiled"})]
    second = [
        parity_report(
            framework,
            precision="fp32",
            seed=2,
            changes={"run_id": f"second-{framework}", "parity.path.execution": execution},
        )
        for framework, execution in (("tensorflow", "graph"), ("torch", "compiled"))
    ]
    assert said(*runs, *traces(), allow="config.execution").outcome == "not_shown"
    assert said(*runs, *traces(), *second, allow="config.execution").outcome == "agree"


def test_section_parity_of_many_untraced_kinds_counts_the_rest() -> None:
    runs = [
        make_report(framework="torch", seed=seed, changes={"environment.framework.version": f"9.{seed}"})
        for seed in range(1, 6)
    ]
    parity = said(*side("tensorflow", TF_SPEEDS), *runs, *traces(), allow="environment.framework.version")
    assert "torch 9.1 in fp32" in parity.text
    assert "; and 3 more; add --parity-steps" in parity.text


def test_section_parity_of_published_protocol_is_not_expected() -> None:
    published = [
        make_report(framework=framework, protocol="published", seed=seed) for framework in FRAMEWORKS for seed in (1, 2)
    ]
    assert said(*published, *traces()).outcome == "not_expected"
