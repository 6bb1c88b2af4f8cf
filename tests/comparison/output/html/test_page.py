from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from jobs.comparison.output.html.page import MAX_ROWS
from jobs.comparison.output.html.theme import ROLE
from tests.comparison.comparisons import parity_report
from tests.comparison.output.html.pages import HOSTILE, SERIES, Element, matrix, page_of, read_page
from tests.support.reports import make_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    reports = [*matrix(gpu=True, series=True), make_report(framework="tensorflow", seed=9, gpu=True, status="failed")]
    return read_page(page_of(tmp_path_factory.mktemp("page"), *reports))


def texts(element: Element, tag: str) -> list[str]:
    return [found.text for found in element.all(tag)]


def test_the_verdict_comes_first(page: Element) -> None:
    main = page.one("main")
    card = main.all("li")[0]
    assert texts(card, "p")[:2] == ["lenet, matched", "PyTorch is faster"]
    assert "not counted: 1 TensorFlow run (failed)" in card.text
    assert page.all("h1")[0].text == "TensorFlow and PyTorch compared"


def test_every_figure_has_words_a_table_and_a_drawing_for_each_width(page: Element) -> None:
    figures = page.all("figure")
    assert [figure.one("h3").text for figure in figures] == [
        "One against the other",
        "Every run",
        "Where the time goes",
        "Over time",
        "What accuracy costs",
    ]
    for figure in figures:
        drawings = figure.all("svg")
        assert [drawing.attributes["class"] for drawing in drawings] == ["plot wide", "plot narrow"]
        for drawing in drawings:
            assert drawing.attributes["role"] == "img"
            named = str(drawing.attributes["aria-labelledby"]).split()
            assert [child.attributes["id"] for child in drawing.walk()[:2]] == named
            assert all(child.text for child in drawing.walk()[:2])
        rows = figure.one("table").one("tbody").all("tr")
        assert rows
        assert len({len(row.walk()) for row in rows} | {len(figure.one("table").one("thead").all("th"))}) == 1


def test_the_timeline_begins_where_training_does(page: Element) -> None:
    figure = page.all("figure")[3]
    assert "GPU utilization, % of time with some kernel" in figure.text
    assert "Busy multiprocessors (SM), %" in figure.text
    assert "GPU power, W" in figure.text
    assert "CPU" not in figure.text
    before, *_, after = ([cell.text for cell in row.all("td")] for row in figure.one("tbody").all("tr"))
    assert float(before[0]) < 10
    assert float(after[0]) >= 60


def test_every_run_is_there_with_its_status(page: Element) -> None:
    table = next(table for table in page.all("div") if table.attributes.get("aria-label") == "All runs, lenet, matched")
    rows = table.one("tbody").all("tr")
    assert len(rows) == 11
    assert sum("failed: the run is failed" in row.text for row in rows) == 1


def test_ids_are_unique_and_references_resolve(page: Element) -> None:
    ids = Counter(element.attributes["id"] for element in page.walk() if "id" in element.attributes)
    assert max(ids.values()) == 1
    for element in page.walk():
        for name, value in element.attributes.items():
            for target in re.findall(r"^#(.+)$|url\(#(.+)\)", value or "") if name in {"href", "clip-path"} else []:
                assert "".join(target) in ids
        for target in str(element.attributes.get("aria-labelledby") or "").split():
            assert target in ids


def test_nothing_is_fetched_run_or_styled_but_by_the_one_style_sheet(page: Element) -> None:
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


def test_every_role_of_a_colour_is_set_by_the_style_sheet(page: Element) -> None:
    style = page.one("style").text
    used = {name for svg in page.all("svg") for e in svg.walk() for name in str(e.attributes.get("class", "")).split()}
    assert used
    for name in used:
        assert f".{name} {{" in style, name
    for role in ROLE.values():
        assert f".fill-{role} {{" in style


def test_no_colour_in_a_figure_escapes_the_theme(page: Element) -> None:
    for svg in page.all("svg"):
        for element in svg.walk():
            for name in ("fill", "stroke"):
                value = element.attributes.get(name)
                if value not in {None, "none"}:
                    assert value in ROLE, f"{element.tag} {name}={value}"


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "config.recipe": HOSTILE,
        "config.dataset.name": HOSTILE,
        "environment.framework.version": HOSTILE,
        "environment.os": HOSTILE,
        "devices.0.name": HOSTILE,
        "null_reasons": {"results": HOSTILE, "phases[].gpu": HOSTILE},
        "warnings": [{"code": HOSTILE, "message": HOSTILE}],
    }
    reports = [
        make_report(
            framework=framework, gpu=True, status="failed", changes={**changes, "status_reason": HOSTILE, **more}
        )
        for framework, more in (("tensorflow", {}), ("torch", {"environment.os": "other"}))
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


def test_the_same_bytes_whatever_the_order_of_the_input(tmp_path: Path) -> None:
    reports = [*matrix(series=True), parity_report("tensorflow"), parity_report("torch")]
    assert page_of(tmp_path, *reports) == page_of(tmp_path, *reports, reverse=True)


def test_without_a_gpu_the_cpu_is_shown_and_it_says_why(tmp_path: Path) -> None:
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


def test_reports_without_samples_say_so_in_place_of_the_timeline(tmp_path: Path) -> None:
    figure = read_page(page_of(tmp_path, *matrix())).all("figure")[3]
    assert figure.all("svg") == []
    assert "no tensorflow report carries samples: a log's line leaves them to the report file." in figure.text


def test_no_energy_is_explained(tmp_path: Path) -> None:
    figure = read_page(page_of(tmp_path, *matrix())).all("figure")[4]
    assert "No energy is shown: no NVML on this machine." in figure.text


def test_one_run_and_one_side_are_enough_for_a_page(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, make_report()))
    assert "There is one side only." in found.all("figure")[0].text
    assert "1 run on mnist" in found.one("header").text


def test_runs_that_all_failed_make_a_page_without_figures(tmp_path: Path) -> None:
    nothing = {
        "phases": [],
        "results.epochs": [],
        "results.train_wall_s": None,
        "null_reasons.results": "stopped at once",
    }
    reports = [
        make_report(framework=framework, status="failed", images_per_s=None, accuracy=None, changes=nothing)  # type: ignore[arg-type]
        for framework in ("tensorflow", "torch")
    ]
    found = read_page(page_of(tmp_path, *reports))
    assert found.all("svg") == []
    assert [figure.all("p")[0].attributes["class"] for figure in found.all("figure")] == ["note"] * 5


def test_parity_that_fails_is_on_the_first_card(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, *matrix(), parity_report("tensorflow"), parity_report("torch", step=1.7)))
    card = found.one("main").all("li")[0]
    assert card.attributes["class"] == "card fails"
    assert "Parity fails: in float64, seed 1 the traces part at step 2" in card.text
    table = next(table for table in found.all("div") if table.attributes.get("aria-label") == "Every pair of traces")
    assert "differ from step 2 on" in table.text


def test_the_gate_stands_before_the_sections(tmp_path: Path) -> None:
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


def test_parity_alone_makes_a_page(tmp_path: Path) -> None:
    found = read_page(page_of(tmp_path, parity_report("tensorflow"), parity_report("torch")))
    assert "No timed run was given" in found.one("main").text
    assert found.all("figure") == []


def test_thousands_of_runs_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    few = page_of(tmp_path / "few", *matrix(runs=300))
    many = page_of(tmp_path / "many", *matrix(runs=900))
    found = read_page(many)
    assert f"The first {MAX_ROWS} of 1,800 rows" in found.text
    assert "200 of up to 900 runs a side are drawn, evenly by rank" in found.text
    assert len(many) < 1.2 * len(few)


def test_one_odd_reading_at_the_start_does_not_flatten_the_timeline(tmp_path: Path) -> None:
    series = {**SERIES, "values": [[9e4, *SERIES["values"][0][1:]], *SERIES["values"][1:]]}
    odd = make_report(framework="torch", gpu=True, timeseries=True, changes={"timeseries": series})
    figure = read_page(page_of(tmp_path, odd)).all("figure")[3]
    assert "Some readings outside training lie above the frame" in figure.text
    ticks = [text.text for text in figure.all("svg")[0].all("text")]
    assert "60" in ticks
    assert not any("," in tick and tick[0].isdigit() for tick in ticks)
