"""Writes measured figures and the version into README and docs: ``make figures``.

A page holds a block between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``. It is rendered from the Jinja
template ``docs/figures/NAME.md.jinja``. The template sees each ``docs/results/FILE.json`` as ``FILE``, and the recipes.
Image tags outside the blocks, such as ``mnist-tf:1.2.3``, get the package's version.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

import jinja2
from measurement import RESULTS, ROOT

from jobs import __version__
from jobs.recipes import RECIPES, Adam, Convolution, Dense, Flatten, MaxPool, Recipe, model_flop_per_image

TEMPLATES = ROOT / "docs/figures"
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- figures: ([a-z_]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
IMAGE_TAG = re.compile(r"\b(mnist-(?:tf|torch|merge)):\d+\.\d+\.\d+\b")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; code 1 where a page is not up to date")
    arguments = parser.parse_args()
    stale = False
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        rendered = render_page(text)
        if rendered != text:
            stale = True
            print(f"{page.relative_to(ROOT)}: {'not up to date; run make figures' if arguments.check else 'written'}")
            if not arguments.check:
                page.write_text(rendered, encoding="utf-8")
    return 1 if arguments.check and stale else 0


def render_page(text: str) -> str:
    """``text`` with its blocks rendered, and with the current version."""
    text = IMAGE_TAG.sub(rf"\g<1>:{__version__}", text)
    return BLOCK.sub(lambda block: f"{block[1]}{render(block[2]).strip()}\n{block[3]}", text)


def render(name: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown from our own files
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": thousands, "scientific": scientific, "decimals": decimals, "percent": percent}
    environment.filters |= {"flop": model_flop_per_image, "step_flop": step_flop, "step_bytes": step_bytes}
    return environment.get_template(f"{name}.md.jinja").render(results(), recipes=RECIPES)


def step_flop(recipe: Recipe) -> int:
    return recipe.batch_size * model_flop_per_image(recipe)


def step_bytes(recipe: Recipe) -> dict[str, Any]:
    """Bytes of a step in float32: each layer's output five times, each weight seven times, or eleven with Adam."""
    is_adam = isinstance(recipe.optimizer, Adam)
    return {
        "activations": 4 * 5 * recipe.batch_size * outputs(recipe),
        "weights": 4 * (11 if is_adam else 7) * recipe.parameter_count,
        "state": "Adam's moments" if is_adam else "momentum",
    }


def outputs(recipe: Recipe) -> int:
    """The outputs of all layers for one image."""
    channels, side, features, total = 1, 28, 0, 0
    for layer in recipe.layers:
        match layer:
            case Convolution(filters=filters, kernel=kernel, padding=padding):
                channels, side = filters, side if padding == "same" else side - kernel + 1
            case MaxPool(size=size):
                side //= size
            case Dense(units=units):
                features = units
            case Flatten():
                continue
        total += features or channels * side**2
    return total


def results() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def scientific(number: float) -> str:
    return f"{number:.1e}"


def decimals(number: float, places: int = 2) -> str:
    return f"{number:.{places}f}"


def percent(ratio: float, places: int = 0) -> str:
    return f"{100 * ratio:.{places}f} %"


if __name__ == "__main__":
    sys.exit(main())
