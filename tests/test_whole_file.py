from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobs.whole_file import part_file, sync_folder


@pytest.fixture(params=["nameless", "hidden", "no links"])
def volume(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a volume with nameless files, on one without, and on one that knows no links either."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("operation not permitted")

    if request.param != "nameless":
        monkeypatch.setattr("jobs.whole_file._open_nameless", lambda _: None)
    if request.param == "no links":
        monkeypatch.setattr("os.link", refuse)
    return tmp_path


def test_a_name_is_given_once(volume: Path) -> None:
    path = volume / "it"
    with part_file(b"first", volume, "it") as part:
        part.link(path)
    with part_file(b"second", volume, "it") as part, pytest.raises(FileExistsError):
        part.link(path)
    assert [file.name for file in volume.iterdir()] == ["it"]
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_by_a_whole_one(volume: Path) -> None:
    path = volume / "it"
    for content in (b"first", b"second", b"third"):
        with part_file(content, volume, "it") as part:
            part.replace(path)
        sync_folder(volume)
        assert path.read_bytes() == content
    assert [file.name for file in volume.iterdir()] == ["it"]


def test_what_was_not_named_leaves_nothing(volume: Path) -> None:
    with pytest.raises(ZeroDivisionError), part_file(b"it", volume, "it"):
        raise ZeroDivisionError
    assert list(volume.iterdir()) == []


def test_a_nameless_file_that_cannot_be_linked_is_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def refuse_nameless(source: str, path: Path, **options: object) -> None:
        if options:
            raise FileNotFoundError("no /proc here")
        real(source, path)

    monkeypatch.setattr("os.link", refuse_nameless)
    for name in ("linked", "replaced"):
        with part_file(name.encode(), tmp_path, name) as part:
            (part.link if name == "linked" else part.replace)(tmp_path / name)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "linked": b"linked",
        "replaced": b"replaced",
    }


def test_descriptors_are_given_back(volume: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(20):
        with part_file(b"it", volume, "it") as part:
            part.replace(volume / "it")
            if number % 2:
                with part_file(b"it", volume, "it") as other:
                    other.replace(volume / "it")
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize(("code", "said"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_volume_that_cannot_sync_a_folder_has_the_file_all_the_same(
    code: int, said: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    if said:
        with pytest.raises(OSError, match="refused"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)
