"""Writes a comparison's files: each whole or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from jobs.comparison.render_csv import runs_csv
from jobs.comparison.text import visible
from jobs.errors import NotWritable
from jobs.whole_file import part_file, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobs.comparison.model import Comparison

JSON_NAME: Final = "comparison.json"
MARKDOWN_NAME: Final = "comparison.md"
HTML_NAME: Final = "comparison.html"
CSV_NAME: Final = "runs.csv"


def output_files(folder: Path) -> tuple[Path, ...]:
    """Where :func:`write` puts the comparison."""
    return folder / JSON_NAME, folder / MARKDOWN_NAME, folder / HTML_NAME, folder / CSV_NAME


def write(comparison: Comparison, markdown: str, html: str, folder: Path) -> tuple[Path, ...]:
    """Write comparison.json, runs.csv, and ``markdown`` and ``html`` beside them, and return their paths.

    ``folder`` is made if missing. Earlier files are replaced, and only when all new ones are wholly on the disk.

    Raises:
        NotWritable: the folder cannot be made or written to, or the disk is full.
    """
    paths = output_files(folder)

    def texts() -> Iterator[str]:
        # One at a time in memory. ASCII, since who prints the file to a terminal would else print what reports brought.
        yield comparison.model_dump_json(indent=2, ensure_ascii=True) + "\n"
        yield from (markdown, html)
        yield runs_csv(comparison)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unfinished:
            parts = [unfinished.enter_context(part_file(text.encode(), folder, "comparison")) for text in texts()]
            for part, path in zip(parts, paths, strict=True):
                part.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise NotWritable(
            f"output folder {visible(str(folder))!r} cannot be written ({error.strerror or error}); "
            "choose another with --output-dir, or fix its owner, mode or free space"
        ) from error
    return paths
