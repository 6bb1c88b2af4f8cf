"""Builds comparisons for tests through the same door as the program: log lines in, a comparison out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jobs.comparison.build import build
from jobs.comparison.input.load import load
from jobs.comparison.input.run_summary import ReportLocation, summarize
from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.terminal import render_terminal
from jobs.comparison.output.write import write
from jobs.report import to_line
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.expected import Expected
    from jobs.comparison.input.load import Loaded
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import Comparison, Section
    from jobs.report import Report

TF_SPEEDS = (10_000.0, 10_100.0, 9_900.0, 10_050.0, 9_950.0)
TORCH_SPEEDS = (12_000.0, 12_100.0, 11_900.0, 12_050.0, 11_950.0)
EXECUTION = {"tensorflow": "graph", "torch": "eager"}


def side(framework: FrameworkName, speeds: tuple[float, ...]) -> list[Report]:
    return [
        make_report(framework=framework, seed=seed, images_per_s=speed) for seed, speed in enumerate(speeds, start=1)
    ]


def parity_report(
    framework: Any,
    *,
    precision: str = "fp64",
    step: float = 1.5,
    weights: str = "aa",
    states: int = 8,
    error: float = 1e-7,
    changes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Report:
    """Two float64 steps and no epoch, of the code that :func:`side` times where ``precision`` is fp32.

    ``step`` is the second step's loss, ``weights`` the digest's digits, ``error`` each rounding error from ``states``
    states.
    """
    rounding = [
        {
            "step": number,
            "loss": error,
            "logits": error,
            "gradients": {"conv1.kernel": error},
            "updates": {"conv1.kernel": error},
        }
        for number in range(1, states + 1)
    ]
    parity = {
        "path": {"execution": EXECUTION[framework], "input": "resident", "precision": precision, "device": "cpu"},
        "steps": [{"loss": 2.0, "grad_norm": 0.5}, {"loss": step, "grad_norm": 0.4}],
        "initial_weights_sha256": weights * 32,
        "first_logits": [[0.0, 1.0]],
        "weight_norms": {"conv1.kernel": 2.0},
        "rounding": None if precision == "fp64" else rounding,
    }
    given = {
        "parity": parity,
        "config.precision": precision,
        "config.epochs": 0,
        "results.epochs": [],
        "phases": [],
        "results.steady_images_per_s": None,
        "null_reasons.results": "no epoch was asked for (--epochs 0)",
        **(changes or {}),
    }
    return make_report(framework=framework, run_id=f"parity-{framework}-{precision}", changes=given, **more)


def as_run(report: Report) -> RunSummary:
    return summarize(report, source=f"{report.run_id}.json", location=ReportLocation())


def loaded_from(*reports: Report) -> Loaded:
    return load(["-"], io.BytesIO("\n".join(to_line(report) for report in reports).encode()))


def compare(*reports: Report, allow: tuple[str, ...] = (), expected: Expected | None = None) -> Comparison:
    return build(loaded_from(*reports), allow=allow, expected=expected)


def only_section(*reports: Report, expected: Expected | None = None) -> Section:
    (section,) = compare(*reports, expected=expected).sections
    return section


def terminal(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    render_terminal(comparison, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def write_all(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    return write(comparison, render_markdown(comparison), "<!DOCTYPE html>\n", folder)
