"""Suppresses what TensorFlow's C++ library prints while it is imported, unless that fails."""

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
    """Capture standard error at the file descriptor, since C++ does not write through ``sys.stderr``.

    TensorFlow logs a few lines before it reads ``TF_CPP_MIN_LOG_LEVEL``. On an exception they are printed.
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
