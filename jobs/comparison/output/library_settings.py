"""Keeps a person's own settings away from the libraries that compute and draw, which read them as they are imported."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.errors import NotWritable

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS: Final = {"MATPLOTLIBRC": os.devnull, "MPLBACKEND": "", "SOURCE_DATE_EPOCH": "0"}
"""Values that set nothing. What others set, no file of a comparison follows, and a wrong one would end the merge."""


@contextmanager
def without_settings() -> Iterator[None]:
    """Import such libraries inside.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        NotWritable: there is no folder for temporary files, which matplotlib needs where it has no home.
    """
    # It tells the terminal where it keeps its list of fonts, and that it makes one, which is nobody's concern here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        with _away():
            import matplotlib as mpl  # noqa: PLC0415
        _ = mpl.get_cachedir()
        yield
    except OSError as error:
        raise NotWritable(f"the page cannot be drawn ({error}); set TMPDIR to a folder that can be written") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _away() -> Iterator[None]:
    """Inside, the working folder is one without a ``matplotlibrc``, which would come before all others."""
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
    try:
        os.chdir(Path(__file__).parent)
        try:
            yield
        finally:
            os.fchdir(here)
    finally:
        os.close(here)
