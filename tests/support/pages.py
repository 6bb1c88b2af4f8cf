"""The pages of the project as the tests of them read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read_page(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def command_lines(page: Path) -> list[str]:
    """The command lines of a page's console blocks, without their comments."""
    blocks = re.findall(r"```console\n(.*?)```", read_page(page), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r" +# .*", "", line[2:]).strip() for line in lines if line.startswith("$ ")]


def commands_of(page: Path) -> list[str]:
    """The single commands of those lines."""
    return [command.strip() for line in command_lines(page) for command in re.split(r"&&|\|", line)]


def prose_of(page: Path) -> str:
    return re.sub(r"```.*?```", "", read_page(page), flags=re.DOTALL)


def words_of(name: str) -> str:
    """A page of docs/ on one line."""
    return " ".join(read_page(ROOT / "docs" / name).split())
