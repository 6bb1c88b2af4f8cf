from __future__ import annotations

import errno
import gzip
import io
import os
import signal
import socketserver
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs import datasets as data
from jobs.datasets import download
from jobs.datasets.idx import IDX_FILES
from jobs.errors import BadInput, DatasetRefused
from jobs.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = Callable[[str], tuple[int, bytes]]

NAMES = {f"{spec.stem}.gz" for spec in IDX_FILES}


class Mirror:
    """A server on this machine; ``answer`` maps a file name to a status and a body."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.asked.append(name)
                status, body = answer(name)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"


@contextmanager
def mirrors(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Iterator[list[Mirror]]:
    running = [Mirror(answer) for answer in answers]
    threads = [threading.Thread(target=mirror.server.serve_forever, args=(0.01,)) for mirror in running]
    for thread in threads:
        thread.start()
    monkeypatch.setenv("MNIST_MIRRORS", ", ".join(mirror.url for mirror in running))
    try:
        yield running
    finally:
        for mirror, thread in zip(running, threads, strict=True):
            mirror.server.shutdown()
            thread.join()
            mirror.server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda _seconds: None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def good(small_mnist: Path) -> Answer:
    return lambda name: (200, (small_mnist / name).read_bytes())


def not_found(_name: str) -> tuple[int, bytes]:
    return 404, b"no"


def login_page(_name: str) -> tuple[int, bytes]:
    return 200, b"<html>please log in</html>"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def refusal() -> str:
    with pytest.raises(DatasetRefused) as caught:
        data.load("mnist", on_progress=lambda _line: None)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.DATASET_REFUSED
    return str(caught.value)


def test_download_missing_files_are_downloaded_once(monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer) -> None:
    lines: list[str] = []
    with mirrors(monkeypatch, good) as (mirror,):
        first = data.load("mnist", on_progress=lines.append)
        again = data.load("mnist", on_progress=lines.append)
    assert first.name == "mnist"
    assert first.sha256 == again.sha256
    assert set(mirror.asked) == NAMES
    assert len(mirror.asked) == 4
    assert names_in(cache) == NAMES
    host = mirror.url.split("/")[2]
    assert lines[0] == f"downloading train-images-idx3-ubyte.gz from {host}"
    assert len(lines) == 4


@pytest.mark.parametrize("part", ["headers", "body"])
def test_download_slow_mirror_is_given_up(
    monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer, part: str
) -> None:
    """A byte at a time meets the limit between two pieces for days."""
    monkeypatch.setattr(download, "_MAX_FILE_S", 0.5)
    before = (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0)
    start = b"HTTP/1.0 200 OK\r\n" + (b"Content-Length: 1000000\r\n\r\n" if part == "body" else b"X-Odd: ")
    done = threading.Event()

    class Drip(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.wfile.write(start)
                while not done.wait(0.02):
                    self.wfile.write(b"x")

    lines: list[str] = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server, mirrors(monkeypatch, good) as (mirror,):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        dripping = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("MNIST_MIRRORS", f"http://{dripping}/,{mirror.url}")
        data.load("mnist", on_progress=lines.append)
        monkeypatch.setenv("MNIST_MIRRORS", f"http://{dripping}/")
        monkeypatch.setattr(download, "MIRRORS", ())
        monkeypatch.setenv("MNIST_CACHE_DIR", str(cache / "other"))
        assert f"{dripping}: took more than 0.5 s" in refusal()
        done.set()
        server.shutdown()
    # Asked once, and last from then on; nothing half-written stays.
    assert [dripping in line for line in lines] == [True, False, False, False, False]
    assert names_in(cache) == NAMES | {"other"}
    assert names_in(cache / "other") == set()
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0) == before


def test_download_files_can_be_read_by_other_users(monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer) -> None:
    with mirrors(monkeypatch, good):
        data.load("mnist", on_progress=lambda _line: None)
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o644}


def test_download_onto_a_volume_without_modes_is_stored(
    monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer
) -> None:
    """As of CIFS or of object storage."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"{path} {mode:o}")

    monkeypatch.setattr(Path, "chmod", refuse)
    with mirrors(monkeypatch, good):
        data.load("mnist", on_progress=lambda _line: None)
    assert names_in(cache) == NAMES


def test_download_failed_mirror_is_asked_last_from_then_on(monkeypatch: pytest.MonkeyPatch, good: Answer) -> None:
    with mirrors(monkeypatch, not_found, good) as (first, second):
        data.load("mnist", on_progress=lambda _line: None)
    assert len(first.asked) == 1
    assert set(second.asked) == NAMES


def test_download_wrong_content_is_not_kept_and_the_next_mirror_is_asked(
    monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer
) -> None:
    with mirrors(monkeypatch, login_page, good):
        assert data.load("mnist", on_progress=lambda _line: None).name == "mnist"
    assert names_in(cache) == NAMES


def test_download_only_wrong_content_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with mirrors(monkeypatch, login_page) as (mirror,):
        message = refusal()
    assert "delivered other content (sha256 " in message
    assert len(mirror.asked) == 1
    assert names_in(cache) == set()


def test_download_truncated_file_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer
) -> None:
    with mirrors(monkeypatch, lambda name: (200, good(name)[1][:-20])):
        assert "delivered a damaged file" in refusal()
    assert names_in(cache) == set()


def test_download_server_error_is_tried_again(monkeypatch: pytest.MonkeyPatch, good: Answer) -> None:
    troubles = [503]

    def recovers(name: str) -> tuple[int, bytes]:
        return (troubles.pop(), b"") if troubles else good(name)

    with mirrors(monkeypatch, recovers):
        assert data.load("mnist", on_progress=lambda _line: None).name == "mnist"


def test_download_all_mirrors_fail_message_names_both_alternatives(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    with mirrors(monkeypatch, not_found, lambda _name: (503, b"")) as (first, second):
        message = refusal()
    assert f"{first.url.split('/')[2]}: HTTP 404; {second.url.split('/')[2]}: HTTP 503" in message
    assert "set MNIST_DATA_DIR" in message
    assert "--dataset synthetic" in message
    assert names_in(cache) == set()


def test_download_no_network_message_names_both_alternatives(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", "http://127.0.0.1:9/")
    message = refusal()
    assert message == (
        "MNIST was not found, and train-images-idx3-ubyte.gz could not be downloaded "
        "(127.0.0.1:9: no connection (ConnectionError)); put the four files train-images-idx3-ubyte[.gz], "
        "train-labels-idx1-ubyte[.gz], t10k-images-idx3-ubyte[.gz], t10k-labels-idx1-ubyte[.gz] in a folder and set "
        "MNIST_DATA_DIR to it, or use --dataset synthetic"
    )
    assert capfd.readouterr() == ("", "")


def test_download_damaged_cache_is_repaired(monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer) -> None:
    with mirrors(monkeypatch, good) as (mirror,):
        data.load("mnist", on_progress=lambda _line: None)
        (cache / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
        # A raw file would be read before the packed one.
        (cache / "train-labels-idx1-ubyte").write_bytes(b"damaged too")
        mirror.asked.clear()
        assert data.load("mnist", on_progress=lambda _line: None).name == "mnist"
    assert mirror.asked == ["t10k-labels-idx1-ubyte.gz"]
    assert names_in(cache) == NAMES


def test_download_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, cache: Path, good: Answer
) -> None:
    cache.write_text("a file where the folder should be")
    with mirrors(monkeypatch, good):
        message = refusal()
    assert message.startswith(f"{cache}: train-images-idx3-ubyte.gz cannot be stored (")
    assert "set MNIST_CACHE_DIR" in message


def test_download_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(download, "MAX_DOWNLOAD_BYTES", 100_000)
    with mirrors(monkeypatch, lambda _name: (200, bytes(2_000_000))):
        assert "sent more than 100,000 bytes" in refusal()
    assert names_in(cache) == set()


def test_download_gzip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr("jobs.datasets.idx.MAX_CONTENT_BYTES", 1_000_000)
    with mirrors(monkeypatch, lambda _name: (200, gzip.compress(bytes(2_000_000)))):
        assert "delivered a damaged file" in refusal()
    assert names_in(cache) == set()


@pytest.mark.parametrize("value", ["mirror.example", "ftp://mirror.example/", "http://", "https://[", "https://a/,x"])
def test_mirror_urls_other_than_web_addresses_are_bad_input(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", value)
    with pytest.raises(BadInput, match="MNIST_MIRRORS: expected addresses such as https://"):
        download.mirror_urls()


def test_mirror_urls_are_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", " https://a.example/x , http://b.example/,")
    assert download.mirror_urls() == ("https://a.example/x/", "http://b.example/")
    monkeypatch.setenv("MNIST_MIRRORS", "")
    assert download.mirror_urls() == download.MIRRORS


def test_download_impossible_address_is_a_failed_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", f"http://{'a' * 80}.example/,http://.example/")
    message = refusal()
    assert "; .example: no" in message
    assert "set MNIST_DATA_DIR" in message


def test_download_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", "http://someone:secret@127.0.0.1:9/")
    message = refusal()
    assert "127.0.0.1:9: no connection" in message
    assert "secret" not in message


def test_download_address_with_escapes_is_shown_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNIST_MIRRORS", "http://127.0.0.1:9\x1bc\x9b\udce9/")
    with pytest.raises(DatasetRefused, match=r"127\.0\.0\.1:9\\x1bc\\x9b\\udce9: no"):
        data.load("mnist")
    shown = capsys.readouterr().err
    assert r"from 127.0.0.1:9\x1bc\x9b\udce9" in shown
    assert shown.replace("\n", "").isprintable()


def test_download_without_on_progress_prints_lines_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], good: Answer
) -> None:
    with mirrors(monkeypatch, good):
        data.load("mnist")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 4


def test_download_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    shown = download._DownloadProgress("downloading x", None)
    shown.total = 1000
    shown.update(600)
    shown.reset()
    shown.update(1000)
    shown.close()
    assert "downloading x" in terminal.getvalue()
