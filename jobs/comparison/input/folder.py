"""Finds the files of a folder that may hold reports, however deep, and says what it passes over."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from jobs.comparison.input.report_collection import ReportCollection

READ: Final = (".json", ".log")
"""What the names of files end in that are read."""

_ALIKE: Final = frozenset({"json", "jsonl", "ndjson", "log", "gz", "tgz", "tar", "zip", "bz2", "xz", "zst"})
"""Parts of a name that are much like a report's or a log's, packed or rotated ones too."""


def report_files(folder: Path, found: ReportCollection, leave_out: Iterable[Path]) -> Iterator[Path]:
    """The regular files below ``folder`` that are named like a report or a log, hidden ones aside.

    ``leave_out`` names files that are not yielded; what looks much like a report and is not read goes to ``found``.
    """
    own = {_in_place(path) for path in leave_out}
    own_names = {path.name for path in own}
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        for entry in _entries(parent, found):
            path = parent / entry.name
            if entry.name.startswith(".") or (entry.name in own_names and _in_place(path) in own):
                continue
            if _is_folder(entry):
                waiting.append(path)
                continue
            mode = _mode(path)
            if stat.S_ISDIR(mode):
                found.skip(escape_control_chars(str(path)), "a link to a folder is not followed")
            elif not entry.name.endswith(READ):
                _pass_over(path, found)
            elif stat.S_ISREG(mode):
                yield path
            else:
                found.skip(escape_control_chars(str(path)), "not a regular file")


def _in_place(path: Path) -> Path:
    """``path`` in its folder's real place; where a link of its own leads has no part in it."""
    try:
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError):
        # A relative path in a working folder that is gone, or links that go round.
        return path


def _entries(folder: Path, found: ReportCollection) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.skip(escape_control_chars(str(folder)), f"cannot be read ({error.strerror or error})")
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _mode(path: Path) -> int:
    """What ``path``, or what it is a link to, is; 0 where that cannot be told."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _pass_over(path: Path, found: ReportCollection) -> None:
    if not _ALIKE.isdisjoint(path.name.lower().split(".")[1:]):
        found.pass_over(escape_control_chars(str(path)))
