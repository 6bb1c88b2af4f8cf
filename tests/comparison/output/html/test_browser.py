"""The page as a reader's browser shows it: in the machine's own Chromium, light and dark, narrow and wide, on paper."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.comparison.comparisons import parity_report
from tests.comparison.output.html.pages import HOSTILE, matrix, page_of
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
REQUIRED = "MNIST_JOBS_REQUIRE_CHROMIUM" in os.environ

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not REQUIRED,
        reason="no Chromium here: make test-page installs one, or set CHROMIUM to a browser's path",
    ),
]

EVERYWHERE = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1280)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in many containers, Chromium has no sandbox; the page has no script to fear either way.
        root = os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=not root)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A believable comparison on GPUs, and one of hostile, endless text."""
    folder = tmp_path_factory.mktemp("pages")
    warned = make_report(
        framework="tensorflow",
        seed=9,
        gpu=True,
        status="failed",
        changes={"warnings": [{"code": "throttled", "message": "power cap for 12 s"}]},
    )
    basic = [
        make_report(recipe="basic-cnn", framework=framework, seed=seed, epochs=1)
        for framework in ("tensorflow", "torch")
        for seed in (1, 2)
    ]
    traces = [parity_report("tensorflow"), parity_report("torch"), parity_report("torch", precision="fp32")]
    endless = "W" * 400 + HOSTILE
    hostile = [
        make_report(
            framework=framework,
            gpu=True,
            changes={
                "config.recipe": endless,
                "config.dataset.name": endless,
                "devices.0.name": endless,
                "environment.framework.version": endless,
                "environment.os": f"{endless}{framework}",
                "warnings": [{"code": endless, "message": endless}],
            },
        )
        for framework in ("tensorflow", "torch")
    ]
    texts = {
        "believable": page_of(folder / "a", *matrix(gpu=True, series=True), warned, *basic, *traces),
        "hostile": page_of(folder / "b", *hostile),
    }
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name], encoding="utf-8")
    return paths


@pytest.fixture
def show(browser: Any, files: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens a page; what it logs and requests is collected in ``page.heard``."""
    contexts = []

    def show_page(name: str, scheme: str = "light", width: int = 1280) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: page.heard.append(f"error: {error}"))
        page.on("request", lambda request: page.heard.append(request.url))
        page.on("response", lambda response: page.heard.append(f"response: {response.url}"))
        page.goto(files[name].as_uri())
        return page

    yield show_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("scheme", "width"), EVERYWHERE)
@pytest.mark.parametrize("name", ["believable", "hostile"])
def test_quiet_and_no_wider_than_the_window(
    name: str, scheme: str, width: int, show: Callable[..., Any], files: dict[str, Path]
) -> None:
    page = show(name, scheme, width)
    for details in page.query_selector_all("summary"):
        details.click()
    assert page.heard == [files[name].as_uri(), f"response: {files[name].as_uri()}"]
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("scheme", "width"), EVERYWHERE)
def test_axe_finds_nothing_serious(scheme: str, width: int, show: Callable[..., Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = show("believable", scheme, width)
    for details in page.query_selector_all("summary"):
        details.click()
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found if one["impact"] != "minor"] == []


@pytest.mark.parametrize(("scheme", "ink"), [("light", "rgb(27, 31, 36)"), ("dark", "rgb(231, 234, 238)")])
def test_figures_take_the_page_s_colours_and_font(scheme: str, ink: str, show: Callable[..., Any]) -> None:
    page = show("believable", scheme)
    text = "getComputedStyle(document.querySelector('svg.wide text.fill-ink'))"
    assert page.evaluate(f"{text}.fill") == ink
    assert page.evaluate(f"{text}.fontFamily") == page.evaluate("getComputedStyle(document.body).fontFamily")


def test_each_width_has_its_own_drawing_and_no_label_leaves_it(show: Callable[..., Any]) -> None:
    for width, shown in ((390, "narrow"), (1280, "wide")):
        page = show("believable", "light", width)
        visible = page.eval_on_selector_all(
            "svg.plot", "all => all.filter(one => one.getClientRects().length).map(one => one.classList[1])"
        )
        assert set(visible) == {shown}
        outside = page.eval_on_selector_all(
            f"svg.{shown} text",
            """all => all.map(text => [text.textContent, text.getBoundingClientRect(),
                                       text.ownerSVGElement.getBoundingClientRect()])
                         .filter(([, a, b]) => a.left < b.left - 2 || a.right > b.right + 2)
                         .map(([text]) => text)""",
        )
        assert outside == []


def test_it_prints(show: Callable[..., Any]) -> None:
    page = show("believable", "dark")
    paper = page.pdf(format="A4", prefer_css_page_size=True)
    assert paper.startswith(b"%PDF-")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_policy_lets_nothing_else_in(show: Callable[..., Any]) -> None:
    page = show("believable")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"https://evil.example/x.png\">')")
    page.wait_for_function("document.querySelector('img').complete")
    assert any("violates the following Content Security Policy" in line for line in page.heard)
    assert not any(line.startswith("response: https:") for line in page.heard)
