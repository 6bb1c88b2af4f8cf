"""``make reproduce`` compares two builds: equal digests, or the files that differ."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.oci import index, write_layout
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"opt/a.py": (b"a = 1\n", 100), "opt/b.py": (b"b = 2\n", 100)}


def compare(*layouts: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/compare_images.py"), *map(str, layouts)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compare_images_equal_builds_prints_the_digest(tmp_path: Path) -> None:
    digest = write_layout(tmp_path / "first", [FILES], created="2026")
    assert write_layout(tmp_path / "second", [FILES], created="2026") == digest
    done = compare(tmp_path / "first", tmp_path / "second")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"the digests are equal: {digest}\n", "")


def test_compare_images_different_builds_names_each_file_and_what_differs(tmp_path: Path) -> None:
    changed = {"opt/a.py": (b"a = 9\n", 100), "opt/b.py": (b"b = 2\n", 101), "opt/c.py": (b"", 100)}
    write_layout(tmp_path / "first", [{"etc/x": (b"", 1)}, FILES], created="2026")
    write_layout(tmp_path / "second", [{"etc/x": (b"", 1)}, changed], created="2027")
    done = compare(tmp_path / "first", tmp_path / "second")
    assert (done.returncode, done.stderr) == (1, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("the digests differ: sha256:")
    assert lines[:2] == ["configuration: created differs", "layer 2: 3 files differ"]
    assert lines[2].startswith("  opt/a.py: content ")
    assert lines[3:] == ["  opt/b.py: time 100 and 101", "  opt/c.py: only in the second build"]


def test_compare_images_other_order_is_named(tmp_path: Path) -> None:
    write_layout(tmp_path / "first", [FILES])
    write_layout(tmp_path / "second", [dict(reversed(FILES.items()))])
    done = compare(tmp_path / "first", tmp_path / "second")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == ["layer 1: order or packing"]


def test_compare_images_one_build_with_more_layers_is_named(tmp_path: Path) -> None:
    write_layout(tmp_path / "first", [FILES])
    write_layout(tmp_path / "second", [FILES, FILES])
    assert "layer 2: only in one image" in compare(tmp_path / "first", tmp_path / "second").stdout


def test_compare_images_no_layout_is_an_error(tmp_path: Path) -> None:
    write_layout(tmp_path / "first", [FILES])
    done = compare(tmp_path / "first", tmp_path / "nowhere")
    assert done.returncode == 2
    assert f"error: {tmp_path}/nowhere is no OCI image layout" in done.stderr
    write_layout(tmp_path / "two", [FILES])
    document = index(tmp_path / "two")
    document["manifests"] *= 2
    (tmp_path / "two/index.json").write_text(str(document).replace("'", '"'))
    assert compare(tmp_path / "first", tmp_path / "two").returncode == 2
