"""Keeps what TensorFlow's C++ side prints while it starts from the job's log, unless it fails to start."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def suppress_native_stderr() -> Iterator[None]:
    """Hold standard error back at the file descriptor, since C++ writes past ``sys.stderr``.

    TensorFlow logs a few lines before its own log level is read, so ``TF_CPP_MIN_LOG_LEVEL`` does not stop them. On
    an exception they are printed after all.
    """
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            with contextlib.suppress(OSError):
                os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
