from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.errors import NotWritable
from jobs.exit_codes import ExitCode
from jobs.io.atomic_file import check_writable, pending_file, sync_folder, write_file
from tests.support.programs import ROOT


@pytest.fixture(params=["links", "no links"])
def volume(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a volume with hard links, and on one without."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr("os.link", refuse)
    return tmp_path


def test_link_taken_name_is_refused(volume: Path) -> None:
    path = volume / "it"
    with pending_file(b"first", volume, "it") as part:
        part.link(path)
    with pending_file(b"second", volume, "it") as part, pytest.raises(FileExistsError):
        part.link(path)
    assert [file.name for file in volume.iterdir()] == ["it"]
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o644


def test_replace_gives_the_new_content(volume: Path) -> None:
    path = volume / "it"
    for content in (b"first", b"second", b"third"):
        with pending_file(content, volume, "it") as part:
            part.replace(path)
        sync_folder(volume)
        assert path.read_bytes() == content
    assert [file.name for file in volume.iterdir()] == ["it"]


def test_pending_file_not_named_is_removed(volume: Path) -> None:
    with pytest.raises(ZeroDivisionError), pending_file(b"it", volume, "it"):
        raise ZeroDivisionError
    assert list(volume.iterdir()) == []


def test_pending_file_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"before")
    # Killed when the new file has its hidden name and the old one still has the right one.
    killed = (
        "import os, pathlib, signal, sys; from jobs.io.atomic_file import pending_file\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with pending_file(b'after', path.parent, path.name) as part: part.replace(path)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2
    with pending_file(b"next", tmp_path, "next") as part:
        part.link(tmp_path / "next")
    assert {file.name for file in tmp_path.iterdir()} == {"it", "next"}


def test_pending_file_of_a_living_writer_is_kept(volume: Path) -> None:
    with pending_file(b"first", volume, "it") as first:
        for number in range(3):
            with pending_file(b"other", volume, "it") as other:
                other.replace(volume / f"other-{number}")
        first.replace(volume / "it")
    assert (volume / "it").read_bytes() == b"first"
    assert len(list(volume.iterdir())) == 4


def test_pending_file_cleanup_keeps_all_other_files(tmp_path: Path) -> None:
    name = f".it.{'0' * 16}.mnist-jobs.part"
    for other in (".it.part", ".it.deadbeef.part", name.removeprefix("."), "it"):
        (tmp_path / other).write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "it")
    os.mkfifo(tmp_path / name.replace("0", "1"))
    before = sorted(tmp_path.iterdir())
    with pending_file(b"it", tmp_path, "it"):
        pass
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("letter", ["x", "한"])
def test_replace_longest_name_works(volume: Path, letter: str) -> None:
    path = volume / (letter * (255 // len(letter.encode())))
    for content in (b"first", b"second"):
        with pending_file(content, volume, path.name) as part:
            part.replace(path)
        assert path.read_bytes() == content
    assert list(volume.iterdir()) == [path]


def test_pending_file_concurrent_writers_do_not_disturb_each_other(volume: Path) -> None:
    def write(number: int) -> None:
        for _ in range(100):
            with pending_file(b"%d" % number, volume, "it") as part:
                part.replace(volume / f"it-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert {path.name: path.read_bytes() for path in volume.iterdir()} == {f"it-{n}": b"%d" % n for n in range(4)}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS])
def test_write_file_on_a_volume_that_refuses_modes_is_complete(
    number: int, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", refuse)
    write_file(b"content", volume / "it")
    assert [file.name for file in volume.iterdir()] == ["it"]
    assert (volume / "it").read_bytes() == b"content"


def test_pending_file_closes_its_descriptors(volume: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(20):
        with pending_file(b"it", volume, "it") as part:
            part.replace(volume / "it")
            if number % 2:
                with pending_file(b"it", volume, "it") as other:
                    other.replace(volume / "it")
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_sync_folder_ignores_a_volume_that_cannot_sync(
    code: int, raised: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    if raised:
        with pytest.raises(OSError, match="refused"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_check_writable_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match=r"report folder .*file/reports.* choose another with --report-dir") as caught:
        check_writable(tmp_path / "file" / "reports")
    assert caught.value.exit_code is ExitCode.REPORT_NOT_WRITABLE


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
