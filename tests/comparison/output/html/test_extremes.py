"""Valid numbers at the ends of a float's range go through the whole merge, page included, without a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.input.metrics import MAX_MAGNITUDE
from tests.comparison.output.html.pages import SERIES, page_of, read_page
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path

MOST, LEAST = 1.797e308, 5e-324
FIELDS: dict[str, tuple[str, ...]] = {
    "speed": ("results.steady_images_per_s",),
    "training time": ("results.train_wall_s",),
    "epochs": ("results.epochs.0.wall_s", "results.epochs.1.wall_s"),
    "the end of a phase": ("phases.2.end_s",),
    "the start of a phase": ("phases.2.start_s",),
    "power": ("training.gpu.power_w.mean",),
    "energy": ("training.gpu.energy_j",),
    "the peak and the share of it": ("results.ceiling_flop_per_s", "results.ceiling_share_ratio"),
}


def reports(framework: Any, runs: int, fields: tuple[str, ...], value: float) -> list[Any]:
    """Every other run has ``value`` in ``fields``."""
    return [
        make_report(
            framework=framework,
            seed=seed,
            images_per_s=10_000.0 + seed,
            gpu=True,
            timeseries=True,
            changes={"timeseries": SERIES, **(dict.fromkeys(fields, value) if seed % 2 else {})},
        )
        for seed in range(1, runs + 1)
    ]


@pytest.mark.parametrize("value", [MOST, 0.99 * MAX_MAGNITUDE, LEAST], ids=str)
@pytest.mark.parametrize("runs", [1, 5])
@pytest.mark.parametrize("name", FIELDS)
def test_page_of_an_extreme_figure_is_made(tmp_path: Path, name: str, runs: int, value: float) -> None:
    sides = [report for side in ("tensorflow", "torch") for report in reports(side, runs, FIELDS[name], value)]
    baseline = reports("torch", 5, FIELDS[name], value) if runs == 5 else []
    page = read_page(page_of(tmp_path, *sides, baseline=baseline))
    assert len(page.all("figure")) == 5
    assert "e+308" not in "".join(drawing.text for drawing in page.all("svg"))


@pytest.mark.parametrize("value", [MOST, -MOST, 0.99 * MAX_MAGNITUDE, LEAST], ids=str)
@pytest.mark.parametrize("where", ["values", "times"])
def test_page_of_an_extreme_sample_is_made(tmp_path: Path, where: str, value: float) -> None:
    values, times = SERIES["values"], SERIES["t_s"]
    series = {
        **SERIES,
        "values": [[value, *column[1:30], value, *column[31:]] for column in values] if where == "values" else values,
        "t_s": [*times[:-2], value, value] if where == "times" else times,
    }
    sides = [
        make_report(framework=framework, gpu=True, timeseries=True, changes={"timeseries": series})
        for framework in ("tensorflow", "torch")
    ]
    page = read_page(page_of(tmp_path, *sides))
    assert page.all("figure")[3].all("svg")
