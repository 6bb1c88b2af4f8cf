from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.comparison.output.markdown import render_markdown
from jobs.comparison.output.write import check_outputs, output_files, write
from jobs.comparison.schema import SCHEMA_VERSION, Comparison
from jobs.errors import NotWritable
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, side, write_all
from tests.support.reports import make_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.report import Report

NAMES = ["comparison.html", "comparison.json", "comparison.md", "runs.csv"]


def test_write_json_is_read_back_unchanged(tmp_path: Path) -> None:
    comparison = compare(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS))
    json, *_ = write_all(comparison, tmp_path)
    assert Comparison.model_validate_json(json.read_text(encoding="utf-8")) == comparison
    assert comparison.schema_version == SCHEMA_VERSION


def test_write_over_an_earlier_comparison_replaces_it(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    write_all(compare(make_report()), folder)
    write_all(compare(make_report(seed=2)), folder)
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in output_files(folder))


def test_write_to_an_impossible_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="--output-dir"):
        write_all(compare(make_report()), tmp_path / "file/out")


def test_write_to_a_full_disk_keeps_the_earlier_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, markdown, *_ = write_all(compare(make_report()), tmp_path)
    before = markdown.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NotWritable, match="No space left"):
        write_all(compare(make_report(seed=2)), tmp_path)
    assert markdown.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def _write(comparison: Comparison, folder: Path) -> None:
    """All four files, with a short page in the place of the long one."""
    write(comparison, render_markdown(comparison), f"<code>{comparison.comparison_id}</code>", folder)


def _ids(folder: Path) -> list[str]:
    """The id in each file that is there."""
    found = []
    for path in output_files(folder):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".json":
                found.append(json.loads(text)["comparison_id"])
            elif path.suffix == ".csv":
                found += {row["comparison_id"] for row in csv.DictReader(text.splitlines())}
            else:
                found += re.findall(r"(?<![0-9a-f])(?:[0-9a-f]{4}-){3}[0-9a-f]{4}(?![0-9a-f])", text)
    return found


def _run_in_child(work: Callable[[], None], *, killed_at: int) -> bool:
    """Do ``work`` in a child that is killed before it names, moves or removes a file for the ``killed_at``-th time.

    Returns:
        Whether it was killed; a child that ends before that is not.
    """
    child = os.fork()
    if child == 0:
        left = killed_at

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in {"os.rename", "os.link", "os.remove"}:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        _run_and_exit(work)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}
    return status != 0


def _run_and_exit(work: Callable[[], None]) -> None:
    """The end of a forked child: whatever happens, it does not go on with the tests of its parent."""
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def test_write_killed_at_any_moment_leaves_no_mixture(tmp_path: Path) -> None:
    earlier, later = compare(make_report(seed=1)), compare(make_report(seed=2))
    killed = 0
    while True:
        folder = tmp_path / str(killed)
        _write(earlier, folder)
        if not _run_in_child(lambda folder=folder: _write(later, folder), killed_at=killed + 1):  # type: ignore[misc]
            break
        killed += 1
        assert len(set(_ids(folder))) <= 1
        # The next merge puts all in order, whatever was left aside.
        _write(later, folder)
        assert _ids(folder) == [later.comparison_id] * 4
        assert sorted(path.name for path in folder.iterdir()) == NAMES
    # Four step aside, four come, four that stood aside are removed.
    assert killed >= 12


def test_write_over_a_folder_or_pipe_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    earlier = compare(make_report(seed=1))
    for name in NAMES:
        folder = tmp_path / name
        _write(earlier, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != name}
        for make in (os.mkdir, os.mkfifo):
            (folder / name).unlink(missing_ok=True)
            make(folder / name)
            with pytest.raises(NotWritable, match=f"{re.escape(name)}' cannot be written: it is "):
                _write(compare(make_report(seed=2)), folder)
            with pytest.raises(NotWritable, match="--output-dir"):
                check_outputs(folder)
            assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != name} == before
            if make is os.mkdir:
                (folder / name).rmdir()


@pytest.mark.parametrize("name", NAMES)
def test_write_backup_name_of_a_folder_is_refused_and_changes_nothing(name: str, tmp_path: Path) -> None:
    for earlier in ([], [compare(make_report(seed=1))]):
        for comparison in earlier:
            _write(comparison, tmp_path)
        (tmp_path / f".{name}.old").mkdir(exist_ok=True)
        before = sorted(tmp_path.iterdir()), _ids(tmp_path)
        with pytest.raises(NotWritable, match=rf"\.{re.escape(name)}\.old' cannot be written: it is a folder"):
            _write(compare(make_report(seed=2)), tmp_path)
        assert (sorted(tmp_path.iterdir()), _ids(tmp_path)) == before
        (tmp_path / f".{name}.old").rmdir()


def test_check_outputs_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotWritable, match=r"file' is no folder; choose another with --output-dir"):
        check_outputs(tmp_path / "file")
    check_outputs(tmp_path / "new")
    check_outputs(tmp_path / "file/below")


def test_write_over_a_link_replaces_it_and_keeps_the_target(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/runs.csv").symlink_to(tmp_path / "mine.txt")
    _write(compare(make_report()), tmp_path / "out")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "out/runs.csv").is_symlink()


def test_write_that_fails_half_way_restores_the_earlier_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(compare(make_report(seed=1)), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = os.link, []

    def fail_at_the_third(*args: object, **more: object) -> None:
        calls.append(args)
        if len(calls) >= 3:
            raise OSError(28, "No space left on device")
        real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("os.link", fail_at_the_third)
    monkeypatch.setattr("os.open", _open_without_space(tmp_path))
    with pytest.raises(NotWritable, match="No space left"):
        _write(compare(make_report(seed=2)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def _open_without_space(folder: Path) -> Callable[..., int]:
    """``os.open`` on a full disk: no name is to be had in ``folder``."""
    real = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise OSError(28, "No space left on device")
        return real(path, flags, mode, **more)

    return refuse


def test_write_during_another_merge_is_refused(tmp_path: Path) -> None:
    _write(compare(make_report(seed=1)), tmp_path)
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(NotWritable, match="is being written by another merge"):
            _write(compare(make_report(seed=2)), tmp_path)
    finally:
        os.close(other)
    assert len(set(_ids(tmp_path))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_write_stopped_by_a_signal_finishes_first(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        sent: list[str] = []

        def stop(event: str, _: object) -> None:
            if event == "os.link" and not sent:
                sent.append(event)
                os.kill(os.getpid(), signal.SIGTERM)

        sys.addaudithook(stop)
        _write(later, tmp_path)

    _write(compare(make_report(seed=1)), tmp_path)
    later = compare(make_report(seed=2))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _run_and_exit(write_and_stop)
    _, status = os.waitpid(child, 0)
    assert status == signal.SIGTERM
    assert _ids(tmp_path) == [later.comparison_id] * 4


def test_comparison_id_of_the_same_reports_is_the_same() -> None:
    ids = [compare(*reports).comparison_id for reports in _differing_reports()]
    assert len(set(ids)) == len(ids)
    assert ids == [compare(*reports[::-1]).comparison_id for reports in _differing_reports()]


def _differing_reports() -> list[list[Report]]:
    return [
        [make_report()],
        [make_report(changes={"results.test_loss": 0.16})],
        [make_report(), make_report(seed=2)],
    ]
