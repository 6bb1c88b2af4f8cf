from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison import build as build_module
from jobs.comparison.output.html.page import MAX_ROWS, render_html
from tests.comparison.comparisons import loaded_from, parity_report
from tests.comparison.output.html.pages import HOSTILE, SERIES, Element, matrix, page_of, read_page
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import RunRow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    reports = [*matrix(gpu=True, series=True), make_report(framework="tensorflow", seed=9, gpu=True, status="failed")]
    return read_page(page_of(tmp_path_factory.mktemp("page"), *reports))


def texts(element: Element, tag: str) -> list[str]:
    return [child.text for child in element.all(tag)]


def drawings(element: Element) -> list[Element]:
    """Whole figures; an ``svg`` inside one stretches a line."""
    return [svg for svg in element.all("svg") if svg.attributes.get("role") == "img"]


def percentages(element: Element) -> Iterator[float]:
    """Every horizontal position in ``element``."""
    for child in element.walk():
        for name in ("x", "x1", "x2", "cx", "width"):
            value = str(child.attributes.get(name, ""))
            if value.endswith("%"):
                yield float(value[:-1])


def test_cards_with_verdicts_come_first(page: Element) -> None:
    main = page.one("main")
    card = main.all("li")[0]
    assert texts(card, "p")[:2] == ["lenet, matched", "PyTorch is faster"]
    assert "not counted: 1 TensorFlow run (failed)" in card.text
    assert page.all("h1")[0].text == "TensorFlow and PyTorch compared"


def test_figures_each_have_words_a_table_and_one_drawing(page: Element) -> None:
    figures = page.all("figure")
    assert [figure.one("h3").text for figure in figures] == [
        "Ratio of the frameworks",
        "Every run",
        "Where the time goes",
        "Over time",
        "Accuracy against time and energy",
    ]
    for figure in figures:
        (drawing,) = drawings(figure)
        assert drawing.attributes["role"] == "img"
        named = str(drawing.attributes["aria-labelledby"]).split()
        assert [child.attributes["id"] for child in drawing.walk()[:2]] == named
        assert all(child.text for child in drawing.walk()[:2])
        rows = figure.one("table").one("tbody").all("tr")
        assert rows
        assert len({len(row.walk()) for row in rows} | {len(figure.one("table").one("thead").all("th"))}) == 1


def test_timeline_starts_at_the_first_training_phase(page: Element) -> None:
    figure = page.all("figure")[3]
    assert "GPU utilization, % of time with some kernel" in figure.text
    assert "Busy multiprocessors (SM), %" in figure.text
    assert "GPU power, W" in figure.text
    assert "CPU" not in figure.text
    before, *_, after = ([cell.text for cell in row.all("td")] for row in figure.one("tbody").all("tr"))
    assert float(before[0]) < 10
    assert float(after[0]) >= 60


def test_run_table_has_every_run_with_its_status(page: Element) -> None:
    table = next(table for table in page.all("div") if table.attributes.get("aria-label") == "All runs, lenet, matched")
    rows = table.one("tbody").all("tr")
    assert len(rows) == 11
    assert sum("failed: the run is failed" in row.text for row in rows) == 1


def test_ids_are_unique_and_references_resolve(page: Element) -> None:
    ids = Counter(element.attributes["id"] for element in page.walk() if "id" in element.attributes)
    assert max(ids.values()) == 1
    for element in page.walk():
        for name, value in element.attributes.items():
            for target in re.findall(r"^#(.+)$|url\(#(.+)\)", value or "") if name == "href" else []:
                assert "".join(target) in ids
        for target in str(element.attributes.get("aria-labelledby") or "").split():
            assert target in ids


def test_page_fetches_and_runs_nothing_and_has_one_style_sheet(page: Element) -> None:
    tags = {element.tag for element in page.walk()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "foreignobject"}
    for element in page.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in {"href", "src", "xlink:href", "action"}:
                assert str(value).startswith("#")
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (
        meta.attributes["content"]
        for meta in page.all("meta")
        if meta.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_classes_in_figures_are_all_in_the_style_sheet(page: Element) -> None:
    style = page.one("style").text
    for figure in page.all("figure"):
        shown = [element for part in (*figure.all("ul"), *drawings(figure)) for element in (part, *part.walk())]
        used = {name for element in shown for name in str(element.attributes.get("class") or "").split()}
        assert used
        for name in used:
            assert re.search(rf"\.{name}\b[^{{}}]*{{", style), name


def test_colours_of_figures_come_from_the_style_sheet_alone(page: Element) -> None:
    for svg in page.all("svg"):
        for element in (svg, *svg.walk()):
            assert not {"fill", "stroke", "color", "opacity", "style"} & element.attributes.keys()


def test_marks_lie_inside_the_figure_at_any_width(page: Element) -> None:
    for drawing in page.all("svg"):
        assert all(-0.01 <= percent <= 100.01 for percent in percentages(drawing))


def test_legends_name_what_is_drawn(page: Element) -> None:
    legends = [texts(figure, "li") for figure in page.all("figure")]
    sides = ["TensorFlow", "PyTorch"]
    assert legends == [[], sides, ["build", "first step", "train", "evaluate"], sides, sides]


def test_page_with_hostile_text_shows_it_as_text(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "config.recipe": HOSTILE,
        "config.dataset.name": HOSTILE,
        "environment.framework.version": HOSTILE,
        "environment.os": HOSTILE,
        "devices.0.name": HOSTILE,
        "null_reasons": {"results": HOSTILE, "phases[].gpu": HOSTILE},
        "warnings": [{"code": HOSTILE, "message": HOSTILE}],
    }
    changes["status_reason"] = HOSTILE
    reports = [
        make_report(framework="tensorflow", gpu=True, status="failed", changes=changes),
        make_report(framework="torch", gpu=True, status="failed", changes={**changes, "environment.os": "other"}),
    ]
    html = page_of(tmp_path, *reports)
    found = read_page(html)
    assert {"script", "img"}.isdisjoint(element.tag for element in found.walk())
    assert len(found.all("style")) == 1
    assert not [c for c in html if not c.isprintable() and c != "\n"]
    assert "{{ 7 * 7 }}" in found.text
    assert "\\u202egnp.exe" in found.text
    heading = next(h2 for h2 in found.all("h2") if h2.attributes.get("id") == "s1-heading")
    assert heading.text.startswith("x\"'><script>alert(1)</script><img src=x onerror=alert(1)>\\n{{ 7 * 7 }} $x^2$ ")


def test_page_with_input_in_another_order_has_the_same_bytes(tmp_path: Path) -> None:
    reports = [*matrix(series=True), parity_report("tensorflow"), parity_report("torch")]
    assert page_of(tmp_path, *reports) == page_of(tmp_path, *reports, reverse=True)


def test_timeline_without_a_gpu_shows_the_cpu_and_the_reason(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, *matrix(series=True)))
    figure = found.all("figure")[3]
    # The samples come from a machine with a GPU, the phases from one without: what is drawn is what was sampled.
    assert "GPU power, W" in figure.text
    series = {"columns": ["cpu_percent"], "units": ["%"], "t_s": [0.0, 2.0, 4.0], "values": [[1.0, 190.0, 200.0]]}
    reports = [
        report.model_copy(
            update={"timeseries": make_report(timeseries=True, changes={"timeseries": series}).timeseries}
        )
        for report in matrix()
    ]
    figure = read_page(page_of(tmp_path / "cpu", *reports)).all("figure")[3]
    assert "CPU, % of one core" in figure.text
    assert "No GPU figures: no NVML on this machine." in figure.text


def test_timeline_without_samples_says_why(tmp_path: Path) -> None:
    figure = read_page(page_of(tmp_path, *matrix())).all("figure")[3]
    assert drawings(figure) == []
    assert "no tensorflow report has a time series: telemetry was off, or these come from logs." in figure.text


def test_accuracy_figure_without_energy_says_why(tmp_path: Path) -> None:
    figure = read_page(page_of(tmp_path, *matrix())).all("figure")[4]
    assert "No energy is shown: no NVML on this machine." in figure.text


def test_page_of_one_run_is_made(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, make_report()))
    assert "There is one side only." in found.all("figure")[0].text
    assert "1 run on mnist" in found.one("header").text


def test_page_of_failed_runs_has_notes_instead_of_figures(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "phases": [],
        "results.epochs": [],
        "results.train_wall_s": None,
        "null_reasons.results": "stopped at once",
    }
    reports = [
        make_report(framework=framework, status="failed", images_per_s=None, accuracy=None, changes=nothing)
        for framework in ("tensorflow", "torch")
    ]
    found = read_page(page_of(tmp_path, *reports))
    assert [drawings(figure) for figure in found.all("figure")] == [[]] * 5
    assert [figure.all("p")[0].attributes["class"] for figure in found.all("figure")] == ["note"] * 5


def test_card_with_failed_parity_says_so(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, *matrix(), parity_report("tensorflow"), parity_report("torch", step=1.7)))
    card = found.one("main").all("li")[0]
    assert card.attributes["class"] == "card fails"
    assert "Parity fails: in float64, seed 1 the traces part at step 2" in card.text
    table = next(table for table in found.all("div") if table.attributes.get("aria-label") == "Every pair of traces")
    assert "differ from step 2 on" in table.text


def test_gate_comes_before_the_sections(tmp_path: Path) -> None:
    slower = [
        make_report(framework="torch", seed=seed, images_per_s=6000.0 + seed, run_id=f"now-{seed}")
        for seed in range(1, 6)
    ]
    before = [make_report(framework="torch", seed=seed, images_per_s=12_000.0 + seed) for seed in range(1, 6)]
    found = read_page(page_of(tmp_path, *slower, baseline=before))
    gate = next(section for section in found.all("section") if "gate" in str(section.attributes["class"]).split())
    assert gate.attributes["class"] == "gate regression"
    assert gate.one("h2").text == "Against the baseline: regression"
    assert "steady training 12,003 → 6,003 images/s" in gate.one("ul").text
    row = next(row for row in gate.one("tbody").all("tr") if "steady training" in row.text)
    assert [cell.text for cell in row.all("td")][:3] == ["12,003, n=5", "6,003, n=5", "-49.99 %"]


def test_page_of_parity_traces_alone_has_no_figures(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, parity_report("tensorflow"), parity_report("torch")))
    assert "No timed run was given" in found.one("main").text
    assert found.all("figure") == []


def test_page_of_many_runs_has_bounded_size(tmp_path: Path) -> None:
    few = page_of(tmp_path / "few", *matrix(runs=300))
    many = page_of(tmp_path / "many", *matrix(runs=900))
    found = read_page(many)
    assert f"The first {MAX_ROWS} of 1,800 rows" in found.text
    assert "200 of up to 900 runs a side are drawn, evenly by rank" in found.text
    assert len(many) < 1.2 * len(few)


def test_timeline_with_an_outlier_at_the_start_keeps_its_scale(tmp_path: Path) -> None:
    series = {**SERIES, "values": [[9e4, *SERIES["values"][0][1:]], *SERIES["values"][1:]]}
    odd = make_report(framework="torch", gpu=True, timeseries=True, changes={"timeseries": series})
    figure = read_page(page_of(tmp_path, odd)).all("figure")[3]
    assert "Some readings outside training lie above the frame" in figure.text
    ticks = [text.text for text in drawings(figure)[0].all("text")]
    assert "60" in ticks
    assert not any("," in tick and tick[0].isdigit() for tick in ticks)


def test_gate_table_shows_the_frameworks_usual_names(tmp_path: Path) -> None:
    page = read_page(page_of(tmp_path, *matrix(gpu=True), baseline=matrix(gpu=True)))
    gate = next(part for part in page.all("section") if "gate" in str(part.attributes["class"]))
    names = {row.one("th").text.split(", ")[2].partition(":")[0] for row in gate.one("tbody").all("tr")}
    assert names == {"TensorFlow", "PyTorch"}
    assert "lenet, matched, torch" not in gate.text


def test_page_of_many_runs_makes_each_row_at_most_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the figures, once for the table of runs, and once for what is missing."""
    made: Counter[str] = Counter()
    real = build_module._row

    def count(run: RunSummary) -> RunRow:
        made[run.run_id] += 1
        return real(run)

    monkeypatch.setattr(build_module, "MAX_ROWS_KEPT", 0)
    monkeypatch.setattr(build_module, "_row", count)
    render_html(build_module.build(loaded_from(*matrix(gpu=True))), {})
    assert len(made) == 10
    assert max(made.values()) <= 3
