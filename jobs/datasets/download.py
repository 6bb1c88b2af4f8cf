"""Downloads MNIST from its mirrors into a folder. A file is verified before pooch gives it its name there."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pooch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from jobs.datasets.idx import FILE_NAMES_TEXT, MNIST_SHA256, IdxFileSpec, content_sha256, printable_path
from jobs.errors import BadInput, DatasetRefused
from jobs.io.rich_console import PipeSafeConsole
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

MIRRORS_VARIABLE: Final = "MNIST_MIRRORS"
MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MAX_DOWNLOAD_BYTES: Final = 64 * 2**20
"""The largest file has 10 MB compressed and 47 MB raw. A longer download is stopped."""

_TIMEOUTS_S: Final = (5, 30)
"""To connect, and between two parts of a response."""
_MAX_FILE_S: Final = 600
"""For a whole file, since a server that sends one byte at a time stays within the other limits."""

_RETRIES: Final = 1
_BLOCK_BYTES: Final = 2**16


class _MirrorFailedError(Exception):
    """A mirror failed, and a retry would not help."""


def download(specs: Sequence[IdxFileSpec], folder: Path, on_progress: Callable[[str], None] | None = None) -> None:
    """Download the ``.gz`` files of ``specs`` into ``folder``, which is created if missing.

    Raises:
        DatasetRefused: no mirror delivered a file, or it could not be stored.
        BadInput: ``MNIST_MIRRORS`` holds something else than web addresses.
    """
    # Each failure is reported in this module's own messages.
    pooch.get_logger().setLevel(logging.CRITICAL + 1)
    mirrors = list(mirror_urls())
    for spec in specs:
        failures: list[str] = []
        for mirror in tuple(mirrors):
            try:
                _fetch(spec, mirror, folder, on_progress)
                break
            except _MirrorFailedError as error:
                failures.append(f"{_host(mirror)}: {error}")
                # The next files use this mirror last.
                mirrors.append(mirrors.pop(mirrors.index(mirror)))
        else:
            raise DatasetRefused(
                f"MNIST was not found, and {spec.stem}.gz could not be downloaded ({'; '.join(failures)}); put the "
                f"four files {FILE_NAMES_TEXT} in a folder and set MNIST_DATA_DIR to it, or use --dataset synthetic"
            )


def mirror_urls() -> tuple[str, ...]:
    """The addresses that file names are appended to: those of ``MNIST_MIRRORS``, or the default ones.

    Raises:
        BadInput: ``MNIST_MIRRORS`` holds something else than web addresses.
    """
    text = os.environ.get(MIRRORS_VARIABLE, "")
    urls = tuple(url.strip().rstrip("/") + "/" for url in text.split(",") if url.strip())
    for url in urls:
        try:
            valid = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
        except ValueError:
            valid = False
        if not valid:
            raise BadInput(
                f"{MIRRORS_VARIABLE}: expected addresses such as {MIRRORS[0]}, separated by commas, "
                f"found {url.rpartition('@')[2][:80]!r}"
            )
    return urls or MIRRORS


def _fetch(spec: IdxFileSpec, mirror: str, folder: Path, on_progress: Callable[[str], None] | None) -> None:
    name = f"{spec.stem}.gz"

    def download_and_verify(url: str, output_file: str, store: object) -> None:
        progress = _DownloadProgress(f"downloading {name} from {_host(mirror)}", on_progress)
        try:
            pooch.HTTPDownloader(progress, chunk_size=_BLOCK_BYTES, timeout=_TIMEOUTS_S)(url, output_file, store)
        except OSError as error:
            # 4xx is final. After a server error (5xx) or a lost connection, pooch tries again.
            if (status := _http_status(error)) is not None and status < 500:
                raise _MirrorFailedError(f"HTTP {status}") from error
            raise
        finally:
            progress.close()
        _verify(Path(output_file), spec)

    # No known hash: the compressed file's differs between mirrors, so its content is verified instead.
    store = pooch.create(path=folder, base_url=mirror, registry={name: None}, retry_if_failed=_RETRIES)
    try:
        with _time_limit(_MAX_FILE_S):
            store.fetch(name, downloader=download_and_verify)
    except OSError as error:
        if (status := _http_status(error)) is not None:
            raise _MirrorFailedError(f"HTTP {status}") from error
        # Errors of the HTTP client are OSErrors without a number, and so is pooch's own PermissionError.
        if error.errno is None and not isinstance(error, PermissionError):
            raise _MirrorFailedError(f"no connection ({type(error).__name__})") from error
        raise DatasetRefused(
            f"{printable_path(folder)}: {name} cannot be stored ({error.strerror or 'permission denied'}); set "
            "MNIST_CACHE_DIR to a folder that can be written, or MNIST_DATA_DIR to one that holds MNIST"
        ) from error
    except ValueError as error:
        raise _MirrorFailedError(f"no such address ({type(error).__name__})") from error


def _verify(path: Path, spec: IdxFileSpec) -> None:
    """Check a file that still has its temporary name, which pooch removes on any exception."""
    wanted = MNIST_SHA256[spec.stem]
    try:
        sha256 = content_sha256(path)
    except DatasetRefused as error:
        raise _MirrorFailedError("delivered a damaged file") from error
    if sha256 != wanted:
        raise _MirrorFailedError(f"delivered other content (sha256 {sha256[:12]}… instead of {wanted[:12]}…)")
    # Temporary files are readable by their owner only; images are built by root and run by another user. A volume
    # without modes refuses it.
    with contextlib.suppress(OSError):
        path.chmod(0o644)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`_MirrorFailedError` after ``seconds``, also while the HTTP client waits."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can set an alarm; the commands download in it.
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
        raise _MirrorFailedError(f"took more than {seconds:g} s")

    previous_handler = signal.signal(signal.SIGALRM, give_up)
    # Repeated each second, in case the first alarm comes while Python ignores exceptions.
    previous_timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *previous_timer)
        signal.signal(signal.SIGALRM, previous_handler)


def _http_status(error: OSError) -> int | None:
    """The server's status, if the HTTP client's error has one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _host(url: str) -> str:
    """For messages, because an address may contain a password. Without control characters."""
    return escape_control_chars(urlsplit(url).netloc.rpartition("@")[2])


class _DownloadProgress:
    """Pooch's progress bar. It also stops a download of more than :data:`MAX_DOWNLOAD_BYTES`.

    It is a bar if standard error is a terminal; otherwise one line, to ``on_progress`` or to standard error.
    """

    total = 0
    """Set by pooch before the first update, in bytes; 0 where the server does not say."""

    def __init__(self, title: str, on_progress: Callable[[str], None] | None) -> None:
        with_bar = on_progress is None and sys.stderr.isatty()
        if on_progress is not None:
            on_progress(title)
        elif not with_bar:
            print(title, file=sys.stderr, flush=True)  # noqa: T201 - this is the program's progress
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=PipeSafeConsole(stderr=True), disable=not with_bar)
        self._task = self._bar.add_task(title, total=None)
        self._received_bytes = 0
        self._bar.start()

    def update(self, size: int) -> None:
        self._received_bytes += size
        if self._received_bytes > MAX_DOWNLOAD_BYTES:
            raise _MirrorFailedError(f"sent more than {MAX_DOWNLOAD_BYTES:,} bytes")
        self._bar.update(self._task, total=self.total or None, completed=self._received_bytes)

    def reset(self) -> None:
        self._received_bytes = 0

    def close(self) -> None:
        self._bar.stop()
