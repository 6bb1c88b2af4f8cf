"""The pages agree with the code: exit codes, options, commands, files, links and messages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.cli.app import exit_code_of
from jobs.exit_codes import ExitCode
from jobs.mnist_torch.cli import PROGRAM
from tests.support.pages import PAGES, ROOT, command_lines, commands_of, prose_of, read_page

if TYPE_CHECKING:
    from pathlib import Path

READMES = [ROOT / "README.md", ROOT / "README.ko.md"]
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")

NOT_OURS = {"NVML Shared Library Not Found"}
"""Messages of libraries that the pages quote."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def _links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)]+)\)", prose_of(page)) if "://" not in target]


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_first_screen_shows_purpose_commands_and_figures() -> None:
    for page in READMES:
        first = read_page(page).splitlines()[:25]
        text = "\n".join(first)
        assert sum(line.startswith("- **") for line in first) == 3, page
        for part in ("make demo", "docker run", "kubectl apply", "| TensorFlow ", "docs/architecture.md", "README."):
            assert part in text, (page, part)


def test_readme_length_is_at_most_150_lines() -> None:
    for page in READMES:
        assert len(read_page(page).splitlines()) <= 150, page


def test_korean_readme_has_the_same_commands_links_and_names() -> None:
    english, korean = READMES
    assert command_lines(korean) == command_lines(english)
    other = {"README.md": "README.ko.md", "#문서": "#documentation"}
    assert {other.get(link, link) for link in _links(korean)} == {*_links(english)}
    names = [
        set(re.findall(r"`([^`]+)`", re.sub(r"<!-- figures.*?end of figures -->", "", prose_of(page), flags=re.DOTALL)))
        for page in READMES
    ]
    assert names[0] == names[1]
    for mark in (r"^## ", r"^\| ", r"^- "):
        count = [len(re.findall(mark, read_page(page), re.MULTILINE)) for page in READMES]
        assert count[0] == count[1], mark


def test_exit_codes_page_has_the_code_table() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", OPTIONS, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_options_page_has_every_option_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PROGRAM, ["train", "--help"]) == 0
    options = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    table = OPTIONS.partition("## Options")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| `(--[^`]+)` \|", table, re.MULTILINE) for name in row.split()}
    assert named == options


@each_page
def test_make_targets_in_commands_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "docker" / "images.mk").read_text()
    for command in [*commands_of(page), *re.findall(r"`(make [^`]+)`", prose_of(page))]:
        found = re.match(r"make ([a-z-]+)", command)
        if found:
            # Make itself forms image-NAME and others from the list of images.
            target = re.sub(r"-mnist-(tf|torch|merge)$", "-%", found[1])
            assert re.search(rf"(^|: ){target}( [a-z-]+)*:", makefile, re.MULTILINE), command


@each_page
def test_job_commands_are_accepted_by_the_command_line(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is run up to its options: ``--help`` at its end stops it there, an unknown option stops it before."""
    for command in commands_of(page):
        found = re.search(r"mnist-(?:tf|torch)(?::\S+)? +(train|evaluate|doctor|dataset)(.*)", command)
        if found:
            words = re.sub(r"[>2].*$", "", found[2]) if ">" in found[2] else found[2]
            assert exit_code_of(PROGRAM, [found[1], *words.split(), "--help"]) == 0, (
                f"{command}: {capsys.readouterr().err}"
            )
            named = set(re.findall(r"--[a-z-]+", words))
            assert exit_code_of(PROGRAM, [found[1], "--help"]) == 0
            assert named <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), command


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _links(page):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in _anchors(file), link


@each_page
def test_files_named_in_the_text_exist(page: Path) -> None:
    """Paths from the project's folder. Those with a placeholder (``NAME``, ``*``, ``<``) name no single file."""
    if page.name == "CHANGELOG.md":
        return
    words = [
        word for text in [*re.findall(r"`([^`\n]+)`", prose_of(page)), *commands_of(page)] for word in text.split()
    ]
    for word in words:
        path = re.match(r"(?:jobs|tests|scripts|docs|docker|k8s|\.github)/[\w./-]*", word)
        if path and not re.search(r"[*<]|NAME", word):
            assert (ROOT / path[0].rstrip(".")).exists(), word


def test_merge_commands_use_options_of_the_script() -> None:
    script = ROOT / "scripts" / "merge_reports.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--allow", "--baseline", "--output-dir", "-o"):
        assert option in shown
    for page in PAGES:
        for command in commands_of(page):
            if "merge_reports.py" in command:
                assert set(re.findall(r"--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", shown)), command


def test_duel_commands_are_accepted_by_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / "scripts" / "duel.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ +(--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
    table = read_page(ROOT / "docs" / "duel.md").partition("| option |")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", " ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE)))) == options
    commands = [command for page in PAGES for command in commands_of(page) if "scripts/duel.py" in command]
    assert commands
    for command in commands:
        own, _, train = command.partition(" -- ")
        assert set(re.findall(r"--[a-z-]+", own)) <= options, command
        assert exit_code_of(PROGRAM, ["train", *train.split(), "--help"]) == 0, capsys.readouterr().err


def _program_texts() -> str:
    """All texts in the code of jobs/, with ``…`` for each placeholder."""
    texts = []
    for path in (ROOT / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_quoted_messages_are_those_of_the_code() -> None:
    """A quotation's ``…`` stands for any text; the parts between are in the code."""
    messages = re.findall(r"^\| `([^`]+)`.* \|", read_page(ROOT / "docs/troubleshooting.md"), re.MULTILINE)
    symptoms = read_page(ROOT / "docs/kubernetes.md").partition("| what our message says |")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[1] for row in symptoms.splitlines()[2:]]
    quoted = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    messages += [name for name in quoted if " " in name and not name.startswith("--")]
    assert len(messages) >= 11
    texts = _program_texts()
    for message in set(messages) - NOT_OURS:
        for part in message.split("…"):
            assert part.strip() in texts, message


def test_pages_have_no_placeholder_left() -> None:
    for page in PAGES:
        assert not re.search(r"^[A-Z0-9]+_[A-Z0-9_]+$", page.read_text(encoding="utf-8"), re.MULTILINE), page
