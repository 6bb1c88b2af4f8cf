from __future__ import annotations

import os

import pytest

from jobs.mnist_tf.native_logs import suppress_native_stderr


def test_what_is_written_past_python_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress_native_stderr():
        os.write(2, b"chatter\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_a_start_that_fails_says_all_it_had_to_say(capfd: pytest.CaptureFixture[str]) -> None:
    def start() -> None:
        with suppress_native_stderr():
            os.write(2, b"libsomething.so: not found\n")
            raise ImportError

    with pytest.raises(ImportError):
        start()
    assert "libsomething.so: not found" in capfd.readouterr().err
