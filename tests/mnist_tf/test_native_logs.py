from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.mnist_tf.native_logs import suppress_native_stderr
from tests.support.programs import ROOT


def test_suppress_native_stderr_output_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress_native_stderr():
        os.write(2, b"chatter\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_suppress_native_stderr_failed_import_shows_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    def start() -> None:
        with suppress_native_stderr():
            os.write(2, b"libsomething.so: not found\n")
            raise ImportError

    with pytest.raises(ImportError):
        start()
    assert "libsomething.so: not found" in capfd.readouterr().err


def test_select_device_cpu_prints_nothing_of_cuda() -> None:
    code = "from jobs.mnist_tf.cli import PROGRAM\nPROGRAM.load().select_device('cpu')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
