"""MNIST from its mirrors into a folder: verified before it is moved there, so nothing wrong ever stays."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pooch

from jobs.datasets import idx
from jobs.datasets.checksums import MNIST_SHA256
from jobs.datasets.download_progress import DownloadProgress, progress_for
from jobs.datasets.idx_files import FILE_NAMES_TEXT, IdxFileSpec
from jobs.errors import BadInput, DatasetRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

MIRRORS_VARIABLE: Final = "MNIST_MIRRORS"
MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MAX_DOWNLOAD_BYTES: Final = 64 * 2**20
"""The largest file is 10 MB packed, 47 MB raw: a server that sends more is cut off."""

_TIMEOUT_S: Final = (5, 30)
"""To connect, and between two pieces of an answer."""
_LONGEST_S: Final = 600
"""For a whole file, which takes seconds: a server that sends a byte now and then meets every other limit."""

_RETRIES: Final = 1
_BLOCK_BYTES: Final = 2**16


class _MirrorFailedError(Exception):
    """A mirror did not deliver, and asking it again would not help."""


def download(roles: Sequence[IdxFileSpec], folder: Path, on_progress: Callable[[str], None] | None = None) -> None:
    """Fetch the ``.gz`` files of ``roles`` into ``folder``, which is made if need be.

    Raises:
        DatasetRefused: no mirror delivered a file, or it could not be stored.
        BadInput: ``MNIST_MIRRORS`` holds something else than web addresses.
    """
    # Every failure becomes one of our own messages.
    pooch.get_logger().setLevel(logging.CRITICAL + 1)
    mirrors = list(mirror_urls())
    for role in roles:
        failures: list[str] = []
        # A mirror that failed once is asked last from then on.
        for mirror in tuple(mirrors):
            try:
                _fetch(role, mirror, folder, on_progress)
                break
            except _MirrorFailedError as error:
                failures.append(f"{_host(mirror)}: {error}")
                mirrors.append(mirrors.pop(mirrors.index(mirror)))
        else:
            raise DatasetRefused(
                f"MNIST is not at hand, and {role.stem}.gz could not be downloaded ({'; '.join(failures)}); put the "
                f"four files {FILE_NAMES_TEXT} in a folder and set MNIST_DATA_DIR to it, or use --dataset synthetic"
            )


def mirror_urls() -> tuple[str, ...]:
    """The addresses that file names are appended to, ``MNIST_MIRRORS`` before the usual ones."""
    named = os.environ.get(MIRRORS_VARIABLE)
    if not named:
        return MIRRORS
    urls = tuple(url.strip().rstrip("/") + "/" for url in named.split(",") if url.strip())
    for url in urls:
        if not _is_web_address(url):
            raise BadInput(
                f"{MIRRORS_VARIABLE}: expected addresses such as {MIRRORS[0]}, separated by commas, "
                f"found {url.rpartition('@')[2][:80]!r}"
            )
    return urls or MIRRORS


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _fetch(role: IdxFileSpec, mirror: str, folder: Path, on_progress: Callable[[str], None] | None) -> None:
    name = f"{role.stem}.gz"

    def fetch_and_verify(url: str, output_file: str, _pooch: object) -> None:
        progress = SizeLimitedProgress(progress_for(f"downloading {name} from {_host(mirror)}", on_progress))
        try:
            downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=_BLOCK_BYTES, timeout=_TIMEOUT_S)
            downloader(url, output_file, _pooch)
        except OSError as error:
            # A refusal is final; a server's own trouble (5xx) or a lost connection may pass, and pooch tries again.
            if (status := _http_status(error)) is not None and status < 500:
                raise _MirrorFailedError(f"HTTP {status}") from error
            raise
        finally:
            progress.close()
        _verify(Path(output_file), role)

    # No known hash: the packed file's differs from mirror to mirror, the content's is checked here instead.
    store = pooch.create(path=folder, base_url=mirror, registry={name: None}, retry_if_failed=_RETRIES)
    try:
        with _ends_after(_LONGEST_S):
            store.fetch(name, downloader=fetch_and_verify)
    except OSError as error:
        if (status := _http_status(error)) is not None:
            raise _MirrorFailedError(f"HTTP {status}") from error
        if error.errno is None and not isinstance(error, PermissionError):
            raise _MirrorFailedError(f"no connection ({type(error).__name__})") from error
        reason = error.strerror or "permission denied"
        raise DatasetRefused(
            f"{idx.shown(folder)}: {name} cannot be stored ({reason}); set MNIST_CACHE_DIR to a folder that can be "
            "written, or MNIST_DATA_DIR to one that holds MNIST"
        ) from error
    except ValueError as error:
        raise _MirrorFailedError(f"no such address ({type(error).__name__})") from error


@contextmanager
def _ends_after(seconds: float) -> Iterator[None]:
    """Give a mirror up after so long, wherever the HTTP client waits: an alarm ends what is done inside."""
    if threading.current_thread() is not threading.main_thread():
        # Python lets no other thread set an alarm; the commands download in this one.
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
        raise _MirrorFailedError(f"took more than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    # Again each second, should the first come while Python ignores exceptions.
    other = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *other)
        signal.signal(signal.SIGALRM, previous)


def _http_status(error: OSError) -> int | None:
    """The HTTP client's errors are OSErrors without a number of their own; some carry the server's answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _verify(path: Path, role: IdxFileSpec) -> None:
    """Checked while the file still has its temporary name, which pooch removes on any exception."""
    wanted = MNIST_SHA256[role.stem]
    try:
        found = idx.content_sha256(path)
    except DatasetRefused as error:
        raise _MirrorFailedError("delivered a damaged file") from error
    if found != wanted:
        raise _MirrorFailedError(f"delivered other content (sha256 {found[:12]}… instead of {wanted[:12]}…)")
    # Temporary files are the owner's alone; an image built by root is read by another user.
    path.chmod(0o644)


def _host(url: str) -> str:
    """For messages: an address may carry a password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


class SizeLimitedProgress:
    """A progress bar that also cuts off a server that sends without end."""

    def __init__(self, progress: DownloadProgress) -> None:
        self._progress = progress
        self._received = 0

    @property
    def total(self) -> int:
        return self._progress.total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.total = size

    def update(self, size: int) -> None:
        self._received += size
        if self._received > MAX_DOWNLOAD_BYTES:
            raise _MirrorFailedError(f"sent more than {MAX_DOWNLOAD_BYTES:,} bytes")
        self._progress.update(size)

    def reset(self) -> None:
        self._received = 0
        self._progress.reset()

    def close(self) -> None:
        self._progress.close()
