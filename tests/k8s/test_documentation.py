"""The pages' kubectl commands name what is there, and their table of exit codes is what the Jobs do."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest

from jobs.exit_codes import ExitCode
from tests.k8s.manifests import APPLIED, OVERLAYS, ROOT, SETS, jobs
from tests.k8s.test_policy import (
    ANOTHER_ATTEMPT_CHANGES_NOTHING,
    ANOTHER_ATTEMPT_MAY_HELP,
    CAUSED_BY_ANOTHER_RANK,
)

PAGES = [ROOT / "README.md", ROOT / "docs" / "kubernetes.md"]
PAGE = PAGES[1].read_text("utf-8")


def commands() -> list[list[str]]:
    """Every kubectl command of the pages, in blocks and in running text, as words."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
        lines = [line[2:] for line in blocks.splitlines() if line.startswith("$ kubectl ")]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        lines += [" ".join(line.split()) for line in re.findall(r"`(kubectl [^`]*-[^`]*)`", prose)]
        found += [shlex.split(line.partition(" | ")[0]) for line in lines]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_documented_command_names_existing_objects(words: list[str]) -> None:
    for option, value in pairwise(words):
        if option in {"-f", "-k"}:
            assert (ROOT / value).is_dir()
        if option == "-l" and (found := re.fullmatch(r"app\.kubernetes\.io/instance=(.+)", value)):
            assert found[1] in {"default", *OVERLAYS}
        if option == "-n":
            assert value == "mnist-jobs"
    names = {job.name for name in SETS for job in jobs(name)}
    assert {word.removeprefix("job/") for word in words if word.startswith("job/")} <= names
    assert {word for word in words if word.startswith("mnist-torch-")} <= names


def test_documented_logs_commands_show_all_lines() -> None:
    selected = [words for words in commands() if words[1] == "logs" and "-l" in words]
    assert selected
    assert all("--tail=-1" in words for words in selected)


def test_overlays_are_all_documented() -> None:
    table = PAGE.partition("| overlay |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) != []
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == OVERLAYS


def test_documented_exit_codes_match_the_failure_policy() -> None:
    table = PAGE.partition("| exit code |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE))
    # Killed by SIGKILL: no code of ours.
    assert rows.pop("137") == "is retried, twice"
    assert {int(code) for code, does in rows.items() if does == "fails at once"} == ANOTHER_ATTEMPT_CHANGES_NOTHING
    of_ranks = {int(code) for code, does in rows.items() if does == "is retried, uncounted"}
    assert of_ranks == CAUSED_BY_ANOTHER_RANK - {ExitCode.INTERRUPTED}
    retried = {int(code) for code, does in rows.items() if does == "is retried, twice"}
    assert retried == ANOTHER_ATTEMPT_MAY_HELP - of_ranks
    assert len(rows) == len(ANOTHER_ATTEMPT_CHANGES_NOTHING | ANOTHER_ATTEMPT_MAY_HELP) < len(ExitCode)
    assert {job.spec["backoffLimit"] for job in jobs(APPLIED)} == {2}
